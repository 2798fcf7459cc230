"use strict";
const list = document.querySelector("ul"), form = document.querySelector("form");

function show(notes) {
  list.replaceChildren(...notes.map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
}

async function call(options) {
  const answer = await fetch("/notes", options);
  show(await answer.json());
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  call({ method: "POST", body: form.elements.text.value });
  form.reset();
});
call();
