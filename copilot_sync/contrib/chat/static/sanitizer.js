// The one place where HTML becomes elements of the page. What gets through has no style, no id, no script and no image.

import DOMPurify from "./vendor/dompurify.js";

const TAGS = "a blockquote br code del em h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul";

export function sanitized(html) {
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS.split(" "),
    ALLOWED_ATTR: ["class", "href", "rel", "start", "target"],
    ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
    ADD_URI_SAFE_ATTR: ["rel", "start", "target"], // no addresses
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}
