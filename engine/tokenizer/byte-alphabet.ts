/**
 * The alphabet in which byte-level BPE vocabularies write bytes (GPT-2's bytes_to_unicode): printable Latin-1 bytes stand for
 * themselves, the 68 others are written as the characters from U+0100 on, in order.
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** Byte -> its character. */
export const byteCharacters: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
})();

const bytesByCharCode: Int16Array = (() => {
  const table = new Int16Array(0x100 + 68).fill(-1);
  for (const [byte, character] of byteCharacters.entries()) table[character.charCodeAt(0)] = byte;
  return table;
})();

/** The bytes a vocabulary entry stands for, undefined when it is not written in the alphabet. */
export function bytesOfSymbols(symbols: string): Uint8Array | undefined {
  const bytes = new Uint8Array(symbols.length);
  for (let i = 0; i < symbols.length; i++) {
    const byte = bytesByCharCode[symbols.charCodeAt(i)] ?? -1;
    if (byte < 0) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
