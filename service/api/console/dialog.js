// One question at a time, with a note for the audit trail, asked before anything changes.

import { $, el } from "./dom.js";

// `noted`: whether it asks why. `act(note)` does it; what it throws is shown in the dialog, unless it throws another `Question` to be asked instead.
export class Question {
  constructor({ title, words, label, danger = false, oath = "", noted = true, act }) {
    Object.assign(this, { title, words, label, danger, oath, noted, act });
  }
}

let asked = null;

export function ask(question) {
  asked = question;
  $("dialog-title").textContent = question.title;
  $("dialog-words").replaceChildren(...question.words);
  $("dialog-yes").textContent = question.label;
  $("dialog-yes").className = question.danger ? "danger" : "primary";
  $("dialog-note").parentElement.hidden = !question.noted;
  $("dialog-oath").hidden = !question.oath;
  $("dialog-oath-words").textContent = question.oath;
  $("dialog-sworn").checked = false;
  $("dialog-error").hidden = true;
  busy(false);
  if (!$("dialog").open) {
    $("dialog-note").value = "";
    $("dialog").showModal();
  }
  // Nothing is dropped or forced by pressing Enter twice.
  $(question.danger ? "dialog-no" : "dialog-yes").focus();
}

function busy(is) {
  $("dialog-yes").disabled = is || (Boolean(asked.oath) && !$("dialog-sworn").checked);
  $("dialog").setAttribute("aria-busy", String(is));
}

$("dialog-sworn").addEventListener("change", () => busy(false));
$("dialog-no").addEventListener("click", () => $("dialog").close());
$("dialog-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const mine = asked;
  busy(true);
  $("dialog-error").hidden = true;
  try {
    await mine.act($("dialog-note").value.trim());
    if (asked === mine) $("dialog").close();
  } catch (error) {
    if (asked !== mine || !$("dialog").open) return;
    if (error instanceof Question) return ask(error);
    busy(false);
    $("dialog-error").replaceChildren(el("strong", {}, "Not done. "), error.message);
    $("dialog-error").hidden = false;
  }
});
