// What moves by script asks first whether it may; what moves by style is in page.css.

/** Bring `node` into sight, smoothly unless the system asks for little motion. `block` is where it comes to, as in `scrollIntoView`. */
export function bring(node, block) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  node?.scrollIntoView({ behavior: still ? "auto" : "smooth", block });
}
