// The engine serves the ES module of the npm package under this path.
export { default } from 'dompurify';
