import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fieldPaths, findForeignFields, showPath, valueAt } from '#operator/kube/managed-fields.ts';
import type { KubeObject, ManagedFields } from '#operator/kube/resource.ts';

const container = 'k:{"name":"engine"}';
const port = 'k:{"containerPort":8000,"protocol":"TCP"}';

describe('fields and who owns them', () => {
  test('are the leaves of a FieldsV1 tree, elements of lists by their keys or values', () => {
    const fields = {
      'f:metadata': { 'f:labels': { '.': {}, 'f:app': {} }, 'f:finalizers': { 'v:"a.b/c"': {} } },
      'f:spec': {
        'f:containers': { [container]: { '.': {}, 'f:image': {}, 'f:ports': { [port]: {} } } },
      },
    };
    assert.deepEqual(fieldPaths(fields).map(showPath), [
      'metadata.labels.app',
      'metadata.finalizers["a.b/c"]',
      'spec.containers[name=engine].image',
      'spec.containers[name=engine].ports[containerPort=8000,protocol=TCP]',
    ]);
    assert.deepEqual(fieldPaths(undefined), []);
  });

  test('are found in an object by such a path', () => {
    const object = {
      metadata: { finalizers: ['x', 'a.b/c'] },
      spec: { containers: [{ name: 'other' }, { name: 'engine', image: 'i' }] },
    };
    assert.equal(valueAt(object, ['spec', 'containers', container, 'image']), 'i');
    assert.equal(valueAt(object, ['metadata', 'finalizers', 'v:"a.b/c"']), 'a.b/c');
    for (const path of [
      ['spec', 'none'],
      ['spec', 'containers', 'image'],
      ['metadata', 'finalizers', 'v:"z"', 'q'],
    ]) {
      assert.equal(valueAt(object, path), undefined);
    }
  });

  const entry = (
    manager: string,
    fieldsV1: Record<string, unknown>,
    more: Partial<ManagedFields> = {},
  ): ManagedFields => ({
    manager,
    operation: 'Apply',
    fieldsV1,
    ...more,
  });
  const service = (selector: string, managedFields: readonly ManagedFields[]): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 's', namespace: 'ns', managedFields },
    spec: { selector: { app: selector }, clusterIP: '10.0.0.1' },
  });
  const wanted = service('ours', []);
  const selectorField = { 'f:spec': { 'f:selector': { 'f:app': {} } } };
  const foreign = (live: KubeObject): string[] =>
    findForeignFields(live, wanted, 'nvlm-operator').map(
      ({ manager, path }) => `${manager} ${showPath(path)}`,
    );

  test('that somebody took from us at another value are told with the manager', () => {
    const update = entry('kubectl-edit', selectorField, { operation: 'Update' });
    assert.deepEqual(foreign(service('theirs', [entry('nvlm-operator', {}), update])), [
      'kubectl-edit spec.selector.app',
    ]);
  });

  test('are no drift where the value is ours, where we own them still, in the status, or where we want nothing', () => {
    const theirs = entry('kubectl-edit', selectorField, { operation: 'Update' });
    assert.deepEqual(foreign(service('ours', [theirs])), []);
    assert.deepEqual(
      foreign(service('theirs', [entry('nvlm-operator', selectorField), theirs])),
      [],
    );
    assert.deepEqual(foreign(service('theirs', [{ ...theirs, subresource: 'status' }])), []);
    const other = entry('cloud', { 'f:spec': { 'f:loadBalancerIP': {} } });
    assert.deepEqual(foreign(service('ours', [other])), []);
  });
});
