/* The answer boxes: they judge as vcc_helpers.check does; a test holds the two to each other. */
"use strict";

const NOT_IT = "That is not it. Read the question again, then open the solution.";

/* The numbers that a text may mean: "22,376 cells", "0,33", "33 %", "1/3", "−2e-3". */
function numbersIn(text) {
  const plain = text.trim().replace(/[\u2212\u2013]/g, "-").replace(/(\d)[\u00a0\u202f' ](?=\d{3})/g, "$1");
  const found = plain.match(/^([-+]?[\d.,]*\d\.?(?:e[-+]?\d+)?)(?:\s*\/\s*(\d+(?:\.\d+)?))?\s*(%|[a-zµ×].*)?$/i);
  if (!found) return [];
  const [, digits, below, unit] = found;
  const written = /^[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(digits) ? [digits.replace(/,/g, "")] : [];
  if ((digits.match(/,/g) || []).length === 1 && !digits.includes(".")) written.push(digits.replace(",", "."));
  if (!digits.includes(",")) written.push(digits);
  const values = written.map(one => Number(one) / Number(below || 1)).filter(one => !Number.isNaN(one));
  return unit === "%" ? values.map(one => one / 100).concat(values) : values;
}

function same(answer, right, tolerance) {
  return Math.abs(answer - right) <= 1e-12 + tolerance * Math.abs(right);
}

/* How many digits after the point, and how many that count; as Python's check finds them. */
function digitsOf(answer) {
  const written = answer.toFixed(10).replace(/0+$/, "");
  return [written.split(".")[1].length, written.replace(".", "").replace(/^[-0]+|[-0]+$/g, "").length];
}

function slip(answer, right, facts) {
  const [digits, counting] = digitsOf(answer);
  const near = Math.min(0.500001 * 10 ** -digits, 0.1 * Math.abs(right)); // 0.5 is a guess
  if (!facts.whole && counting > (digits < 2 ? 1 : 0) && Math.abs(answer - right) <= near)
    return ["right", `${facts.answers[0][2]} (You rounded: it is ${Number(right.toPrecision(6))}.)`];
  const like = (a, b) => same(a, b, facts.tolerance);
  let said = null;
  if (right >= 0 && right <= 1 && like(answer / 100, right))
    said = "The right number, in per cent. Answer with a share, between 0 and 1.";
  else if (like(answer * 100, right))
    said = "The right number, a hundred times too small: the question asks for another scale.";
  else if (like(-answer, right)) said = "The sign is wrong: subtract the other way round.";
  else if (facts.whole) return null;
  else if (like(1 - answer, right))
    said = "That is the other part of the whole. The question is for 1 minus that.";
  else if (like(answer * right, 1)) said = "That is the inverse of the ratio.";
  else if (like(answer, right ** 2)) said = "That is the square of the answer. Take the root.";
  return said && ["wrong", said];
}

function judgeOne(facts, answer) {
  const clean = one => String(one).trim().toLowerCase();
  const ordered = facts.answers.filter(one => one[0]).concat(facts.answers.filter(one => !one[0]));
  for (const [right, value, words] of ordered)
    if (facts.text ? clean(answer) === clean(value) : same(answer, value, facts.tolerance))
      return [right ? "right" : "wrong", words];
  return (!facts.text && slip(answer, facts.answers[0][1], facts)) || ["wrong", NOT_IT];
}

/* What is said to a text: "right" or "wrong", and words. */
function judge(facts, text) {
  if (!text.trim()) return ["empty", "Type your answer, then press Check."];
  if (facts.text) return judgeOne(facts, text.replace(/^["'`\s]+|["'`\s]+$/g, ""));
  const values = numbersIn(text);
  if (!values.length) return ["wrong", "Expected a number, such as 0.25."];
  const said = values.map(one => judgeOne(facts, one));
  return said.find(one => one[0] === "right") || said.find(one => one[1] !== NOT_IT) || said[0];
}

function show(box, [status, words]) {
  const mark = { right: "Right. ", wrong: "Not yet. " }[status] || "";
  box.dataset.status = status;
  box.querySelector("output").textContent = mark + words;
}

document.querySelectorAll("form.answer-box").forEach(box => {
  const bytes = Uint8Array.from(atob(box.dataset.known), c => c.charCodeAt(0));
  const facts = JSON.parse(new TextDecoder().decode(bytes));
  const key = `vcc-answer-${box.dataset.exercise}`;
  const kept = { get: () => { try { return localStorage.getItem(key); } catch { return null; } },
    set: text => { try { localStorage.setItem(key, text); } catch { /* a private window */ } } };
  const field = box.querySelector("input");
  const before = kept.get();
  if (before !== null) { field.value = before; show(box, judge(facts, before)); }
  box.addEventListener("submit", event => {
    event.preventDefault();
    const said = judge(facts, field.value);
    if (said[0] === "right") kept.set(field.value);
    show(box, said);
  });
});
