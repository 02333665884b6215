/* A figure opens in full size: by a click, by Enter, and Escape closes it. */
"use strict";

const pictures = [...document.querySelectorAll("article img")].filter(one => !one.closest("a, .sd-card"));
const frame = document.createElement("dialog");
frame.className = "zoomed";
frame.setAttribute("aria-label", "Figure in full size; Escape closes it");

function open(picture) {
  const copy = picture.cloneNode();
  copy.removeAttribute("style"); // as many pixels as it has
  frame.replaceChildren(copy);
  if (!frame.isConnected) document.body.append(frame);
  frame.showModal();
}

frame.addEventListener("click", () => frame.close());
frame.addEventListener("keydown", event => event.key === "Escape" && frame.close());
pictures.forEach(picture => {
  const button = document.createElement("button");
  button.className = "zoom";
  button.type = "button";
  button.title = "Show in full size";
  picture.replaceWith(button);
  button.append(picture);
  button.addEventListener("click", () => open(picture));
});
