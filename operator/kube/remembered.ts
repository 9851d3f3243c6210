/** What is derived from an object of a Store: those are frozen, and a change is another object. */

/** `make`, called once for each object as long as it lives; what else it is given must be the same for the same object. */
export function remembered<K extends object, Rest extends readonly unknown[], V>(
  make: (of: K, ...rest: Rest) => V,
): (of: K, ...rest: Rest) => V {
  const made = new WeakMap<K, { readonly value: V }>();
  return (of, ...rest) => {
    const known = made.get(of);
    if (known !== undefined) return known.value;
    const value = make(of, ...rest);
    made.set(of, { value });
    return value;
  };
}
