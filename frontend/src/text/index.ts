import { en, type Catalogue } from './en';

/** The catalogue in use. */
export const t: Catalogue = en;
