/** `array` with room for `length` entries: itself when it has it, else a copy at least twice as long. */
export function withCapacity<T extends Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>>(
  array: T,
  length: number,
): T {
  if (length <= array.length) return array;
  const Constructor = array.constructor as new (length: number) => T;
  const larger = new Constructor(Math.max(length, array.length * 2));
  larger.set(array);
  return larger;
}
