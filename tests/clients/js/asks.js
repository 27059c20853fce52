// What both clients ask.
export const model = 'tiny-chat';
export const user = (content) => [{ role: 'user', content }];
export const weather = {
  type: 'function',
  function: {
    name: 'get_weather', description: 'Weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};
export const capital = {
  type: 'object', properties: { country: { type: 'string' }, capital: { type: 'string' } }, required: ['country', 'capital'],
};
