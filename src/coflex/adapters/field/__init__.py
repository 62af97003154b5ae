"""The field: brokers, the light node that runs at the customer, and fleets of them."""
