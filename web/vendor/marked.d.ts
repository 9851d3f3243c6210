// The engine serves the ES module of the npm package under this path.
export { Marked, type Token } from 'marked';
