/** What the first directory of a TIFF file says of its pixels. Format: TIFF 6.0, Adobe 1992. */

const COMPRESSION = 259;
const PHOTOMETRIC = 262;
const JPEG = 7;
const YCBCR = 6;

/**
 * Whether luma and chroma stand in the file without JPEG around them: the decoder takes them for red, green and blue. False for
 * what is no TIFF, or a broken one.
 */
export function isPlainYcbcr(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const isLittle = view.getUint16(0) === 0x4949;
    const word = (at: number): number => view.getUint16(at, isLittle);
    if (word(2) !== 42) return false;
    const directory = view.getUint32(4, isLittle);
    const values = new Map<number, number>();
    for (let entry = 0; entry < word(directory); entry++) {
      const at = directory + 2 + 12 * entry;
      // Both are single words, which stand in the entry itself.
      values.set(word(at), word(at + 8));
    }
    return values.get(PHOTOMETRIC) === YCBCR && values.get(COMPRESSION) !== JPEG;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}
