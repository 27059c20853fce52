import createDOMPurify from 'dompurify';
import { Parser, Renderer, type Token } from 'marked';

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

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escaped = (text: string) => text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);

// HTML that a model writes is shown as the text it is; a picture becomes its description.
const renderer = new Renderer();
const asList = renderer.list;
// "12." alone is an answer, not a list without items.
renderer.list = function (token) {
  const empty = token.items.length === 1 && token.items[0]?.text.trim() === '';
  return empty ? `<p>${escaped(token.raw.trim())}</p>` : asList.call(this, token);
};
renderer.html = ({ text }) => escaped(text);
renderer.image = ({ text, href }) => escaped(text || href);

/** Safe HTML of some tokens. */
export function toHtml(tokens: Token[]): string {
  return purify.sanitize(Parser.parse(tokens, { gfm: true, renderer }), RULES);
}
