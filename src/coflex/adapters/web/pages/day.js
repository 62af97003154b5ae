// Titles appear on hovering; on a touch screen a tap shows them. Printing opens every folded part.
"use strict";
(() => {
  const note = document.getElementById("note");
  document.addEventListener("pointerdown", (event) => {
    const title = event.pointerType === "touch" && event.target.querySelector(":scope > title");
    note.hidden = !title;
    if (title) note.textContent = title.textContent;
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));
})();
