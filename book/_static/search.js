// Excerpts show what a page says: no buttons, code or outputs, and of equations only what is legible without setting.

Search.htmlToText = (html, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  const text = (anchor && page.querySelector(`article ${anchor}`)) || page.querySelector("article");
  if (!text) return "";
  for (const element of text.querySelectorAll(".math")) {
    const formula = element.textContent.trim().replace(/^\\[([]|\\[)\]]$/g, "");
    element.replaceWith(/[\\{}^_&]/.test(formula) ? "…" : formula);
  }
  const noise = "pre, .cell, .sig, .headerlink, script, style, button, input";
  for (const element of text.querySelectorAll(noise)) element.remove();
  return text.textContent.replace(/\s+/g, " ");
};
