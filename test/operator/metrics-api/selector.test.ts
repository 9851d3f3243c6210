import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Labels, parseSelector } from '#operator/metrics-api/selector.ts';

const picks = (selector: string, labels: Labels): boolean => parseSelector(selector)(labels);

/** Rules and examples of the Kubernetes documentation, "Labels and Selectors". */
const table: readonly (readonly [selector: string, labels: Labels, isPicked: boolean])[] = [
  ['', {}, true],
  ['', { a: 'b' }, true],
  ['environment=production', { environment: 'production' }, true],
  ['environment == production', { environment: 'production' }, true],
  ['environment=production', { environment: 'qa' }, false],
  ['environment=production', {}, false],
  ['tier!=frontend', { tier: 'backend' }, true],
  ['tier!=frontend', { tier: 'frontend' }, false],
  ['tier!=frontend', {}, true],
  ['environment=production,tier!=frontend', { environment: 'production', tier: 'x' }, true],
  ['environment=production,tier!=frontend', { environment: 'production', tier: 'frontend' }, false],
  ['environment in (production, qa)', { environment: 'qa' }, true],
  ['environment in (production,qa)', { environment: 'dev' }, false],
  ['environment in (production,qa)', {}, false],
  ['tier notin (frontend, backend)', { tier: 'db' }, true],
  ['tier notin (frontend, backend)', { tier: 'backend' }, false],
  ['tier notin (frontend, backend)', {}, true],
  ['partition', { partition: '' }, true],
  ['partition', {}, false],
  ['!partition', {}, true],
  ['!partition', { partition: 'a' }, false],
  ['a=', { a: '' }, true],
  ['a=', { a: 'b' }, false],
  ['x in (a),y,!z,w!=1', { x: 'a', y: '1' }, true],
  ['app.kubernetes.io/name=nvlm-engine', { 'app.kubernetes.io/name': 'nvlm-engine' }, true],
  ['constructor', {}, false],
];

for (const [selector, labels, isPicked] of table) {
  test(`'${selector}' ${isPicked ? 'picks' : 'leaves'} ${JSON.stringify(labels)}`, () => {
    assert.equal(picks(selector, labels), isPicked);
  });
}

test('what is no selector is an error, not a selector that picks all', () => {
  for (const text of [
    'a b',
    '=',
    'a in b',
    'a in (b',
    'a in (b))',
    '(a)',
    '!',
    'a=b=c',
    'a,,b in',
  ]) {
    assert.throws(() => parseSelector(text), RangeError, text);
  }
});
