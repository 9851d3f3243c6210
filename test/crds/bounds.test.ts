import assert from 'node:assert/strict';
import { test } from 'node:test';
import { customResourceDefinition } from '#crds/crd.ts';
import type { Schema } from '#crds/schema.ts';

/** Paths of strings, lists and maps that a user could make as long as he likes. */
function findUnbounded(schema: Schema, path: string): string[] {
  // The API server bounds these two by what it serves, and what is below a preserved field is not ours to know.
  if (path === '.apiVersion' || path === '.kind') return [];
  if (schema['x-kubernetes-preserve-unknown-fields'] === true) return [];
  const found: string[] = [];
  if (schema.type === 'string' && !isShort(schema)) found.push(path);
  if (schema.type === 'array' && schema.maxItems === undefined) found.push(path);
  if (schema.additionalProperties !== undefined) {
    if (schema.maxProperties === undefined) found.push(path);
    found.push(...findUnbounded(schema.additionalProperties, `${path}{}`));
  }
  if (schema.items !== undefined) found.push(...findUnbounded(schema.items, `${path}[]`));
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    found.push(...findUnbounded(child, `${path}.${name}`));
  }
  return found;
}

/** A time has the length that its format has. */
const isShort = ({ maxLength, enum: values, format }: Schema): boolean =>
  maxLength !== undefined || values !== undefined || format === 'date-time';

test('every string, list and map of the custom resource is bounded', () => {
  for (const { name, schema } of customResourceDefinition.spec.versions) {
    assert.deepEqual(findUnbounded(schema.openAPIV3Schema, ''), [], name);
  }
});

test('what has no bound is found wherever it is', () => {
  const text: Schema = { type: 'string' };
  const schema: Schema = {
    type: 'object',
    properties: {
      name: text,
      short: { type: 'string', maxLength: 3 },
      list: { type: 'array', items: { type: 'object', properties: { inner: text } } },
      map: { type: 'object', additionalProperties: text },
      free: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
    },
  };
  assert.deepEqual(findUnbounded(schema, ''), [
    '.name',
    '.list',
    '.list[].inner',
    '.map',
    '.map{}',
  ]);
});
