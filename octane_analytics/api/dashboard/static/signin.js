// The form that asks for a token. The token stays in this tab.

import { element } from "./dom.js";

export function signInForm(reason, onToken) {
  const input = element("input", {
    type: "password",
    id: "token",
    required: true,
    autocomplete: "off",
    spellcheck: false,
    "aria-describedby": "token-hint",
  });
  const form = element(
    "form",
    {},
    element("label", {}, "Token", input),
    element(
      "p",
      { className: "dim", id: "token-hint" },
      "It is kept until this tab is closed. An operator creates one with ",
      element("code", {}, "octane-analytics token new NAME"),
      ".",
    ),
    element("button", { className: "button primary", type: "submit" }, "Sign in"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim()) onToken(input.value.trim());
  });
  const isFirst = !reason || reason.startsWith("a token is required");
  setTimeout(() => input.focus());
  return element(
    "section",
    { className: "panel signin", "aria-label": "Sign in" },
    element("h1", {}, "Sign in"),
    isFirst ? null : element("p", { className: "failure", role: "alert" }, `Signed out: ${reason}.`),
    form,
  );
}
