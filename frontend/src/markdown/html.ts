import createDOMPurify from 'dompurify';
import { Parser, type Token } from 'marked';

const purify = createDOMPurify(window);

// A model's text may try anything (promise S12): no images, frames, forms, styles; links only to https and mail.
purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName === 'A') {
    node.setAttribute('target', '_blank');
    node.setAttribute('rel', 'noopener noreferrer');
  }
});

const RULES = {
  ALLOWED_TAGS: [
    ...['p', 'br', 'hr', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'a', 'ul', 'ol', 'li', 'sub', 'sup', 'kbd'],
    ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
  ],
  ALLOWED_ATTR: ['href', 'title', 'align', 'start', 'class'],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** Safe HTML of some tokens. */
export function toHtml(tokens: Token[]): string {
  return purify.sanitize(Parser.parse(tokens, { gfm: true }), RULES);
}
