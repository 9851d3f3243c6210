import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { Throughput } from '#operator/scaling/throughput.ts';

describe('the tokens a second of a deployment', () => {
  let throughput: Throughput;
  beforeEach(() => {
    throughput = new Throughput();
  });
  const record = (pod: string, tokens: number, seconds: number) =>
    throughput.record('ns/chat', pod, tokens, seconds * 1000);
  const told = () => throughput.of('ns/chat');

  test('are told once a window is full, over all pods, and change once a window', () => {
    record('a', 5000, 0);
    record('b', 0, 0);
    assert.equal(told(), undefined);
    record('a', 5600, 15);
    record('b', 300, 15);
    assert.equal(told(), undefined);
    record('b', 300, 30);
    assert.equal(told(), 30, '900 tokens in 30 s; the 5000 of before are not counted');
    record('a', 9000, 45);
    assert.equal(told(), 30);
    record('a', 9000, 60);
    assert.equal(told(), 110, '3400 tokens in 30 s, with two digits');
    record('a', 9000, 90);
    assert.equal(told(), 0);
  });

  test('count an engine that started anew from zero', () => {
    record('a', 5000, 0);
    record('a', 60, 30);
    assert.equal(told(), 2);
  });

  test('are none when all pods are gone, and forgotten with the deployment', () => {
    record('a', 0, 0);
    record('a', 300, 30);
    throughput.keep('ns/chat', new Set(['a']));
    assert.equal(told(), 10);
    throughput.keep('ns/chat', new Set());
    assert.equal(told(), 0);
    record('a', 100_000, 40);
    record('a', 100_000, 60);
    assert.equal(told(), 0, 'a pod that comes back is a new one');
    throughput.forget('ns/chat');
    assert.equal(told(), undefined);
  });
});
