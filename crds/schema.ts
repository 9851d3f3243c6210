/** Builders of OpenAPI v3 structural schemas, tied to the TypeScript types: a missing or extra property does not compile. */

/** A CEL rule; `message` tells the user what to change. */
export interface Rule {
  readonly rule: string;
  readonly message: string;
  readonly fieldPath?: string;
  /** `oldSelf` is optional: the rule holds for new objects too. */
  readonly optionalOldSelf?: boolean;
  readonly reason?: 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldValueRequired';
}

export interface Schema {
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'boolean' | 'number';
  readonly description?: string;
  readonly default?: unknown;
  readonly nullable?: boolean;
  readonly enum?: readonly string[];
  readonly pattern?: string;
  readonly format?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly maxProperties?: number;
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema;
  readonly required?: readonly string[];
  readonly 'x-kubernetes-validations'?: readonly Rule[];
  readonly 'x-kubernetes-list-type'?: 'atomic' | 'map' | 'set';
  readonly 'x-kubernetes-list-map-keys'?: readonly string[];
  readonly 'x-kubernetes-preserve-unknown-fields'?: true;
  readonly 'x-kubernetes-int-or-string'?: true;
}

type OptionalKey<T> = { [K in keyof T]-?: undefined extends T[K] ? K : never }[keyof T];
type RequiredKey<T> = Exclude<keyof T, OptionalKey<T>>;

/** Keys of T without `?` must have a default or stand in `required`. */
interface ObjectOptions<T> {
  readonly required?: readonly (RequiredKey<T> & string)[];
  readonly rules?: readonly Rule[];
  readonly default?: Partial<T>;
}

/** An object with exactly the properties of T. */
export function objectOf<T>(
  description: string,
  properties: { readonly [K in keyof Required<T>]: Schema },
  { required = [], rules = [], default: fallback }: ObjectOptions<T> = {},
): Schema {
  return {
    type: 'object',
    description,
    properties,
    ...(required.length > 0 && { required }),
    ...(rules.length > 0 && { 'x-kubernetes-validations': rules }),
    ...(fallback !== undefined && { default: { ...defaultsOf(properties), ...fallback } }),
  };
}

/** A default is checked against the rules as it stands, before the defaults of its properties are filled in. */
function defaultsOf(properties: Readonly<Record<string, Schema>>): Record<string, unknown> {
  const given = Object.entries(properties).filter(([, schema]) => schema.default !== undefined);
  return Object.fromEntries(given.map(([name, schema]) => [name, schema.default]));
}

export const text = (description: string, maxLength: number, more: Schema = {}): Schema => ({
  type: 'string',
  description,
  minLength: 1,
  maxLength,
  ...more,
});

export const integer = (
  description: string,
  minimum: number,
  maximum: number,
  more: Schema = {},
): Schema => ({ type: 'integer', format: 'int32', description, minimum, maximum, ...more });

export const choice = (
  description: string,
  values: readonly string[],
  more: Schema = {},
): Schema => ({
  type: 'string',
  description,
  enum: values,
  ...more,
});

/** A Go duration of hours, minutes, seconds and milliseconds, such as 90s or 1h30m. */
export const duration = (description: string, more: Schema = {}): Schema =>
  text(`${description} A duration such as 90s, 10m or 1h30m.`, 24, {
    pattern: '^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$',
    ...more,
  });

export const quantity = (description: string): Schema =>
  text(`${description} A quantity such as 40Gi.`, 24, {
    pattern: '^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$',
  });

/** The name of an object in the same namespace. */
export const objectName = (description: string): Schema =>
  text(description, 253, { pattern: '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$' });

export const labels = (description: string, maxProperties = 32): Schema => ({
  type: 'object',
  description,
  maxProperties,
  additionalProperties: { type: 'string', maxLength: 63 },
});
