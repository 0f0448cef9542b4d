export function isAvailable() { return false; }
export class Page {}
