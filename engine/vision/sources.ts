/** Where the bytes of a picture come from. */
import { ImageError } from './errors.ts';

const header = /^data:[^,]{0,200};base64,/i;

/** Bytes of a base64 data URL. Its media type is not believed: the file says itself what it is. Throws ImageError. */
export function readDataUrl(url: string, maxBytes: number): Buffer {
  const start = header.exec(url)?.[0].length;
  if (start === undefined) {
    const scheme = /^[a-z][a-z0-9+.-]{0,20}:/i.exec(url)?.[0];
    throw new ImageError(
      `expected data:image/...;base64,..., got ${scheme === undefined ? 'no URL' : `a URL of ${scheme}`}; this server fetches nothing`,
    );
  }
  const length = Math.floor(((url.length - start) * 3) / 4);
  if (length > maxBytes + 2) {
    throw new ImageError(`the file has about ${length} bytes, at most ${maxBytes} are read`);
  }
  const text = url.slice(start);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) throw new ImageError('the data is not base64');
  return Buffer.from(text, 'base64');
}
