/* A table that is wider than its place says so: an edge shadow, and the keyboard can scroll it. */
"use strict";

const frames = document.querySelectorAll(".table-frame");

function mark(frame) {
  const inner = frame.firstElementChild;
  const wide = inner.scrollWidth > inner.clientWidth + 1;
  frame.classList.toggle("more", inner.scrollLeft + inner.clientWidth < inner.scrollWidth - 1);
  if (!wide) return;
  inner.tabIndex = 0;
  inner.setAttribute("role", "region");
  inner.setAttribute("aria-label", "Table, scrolls sideways");
}

const resized = new ResizeObserver(entries => entries.forEach(one => mark(one.target)));
frames.forEach(frame => {
  resized.observe(frame);
  frame.firstElementChild.addEventListener("scroll", () => mark(frame), { passive: true });
});
