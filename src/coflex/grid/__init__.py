"""The grid: tables, power flow, sensitivities, assessment, lights, and the rows a market may see."""
