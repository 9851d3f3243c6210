import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ServerTime } from '#operator/kube/server-time.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

/** As HTTP writes it: whole seconds, rounded down. */
const header = (ms: number): string => new Date(Math.floor(ms / 1000) * 1000).toUTCString();

describe('the time of the API server', () => {
  test('is ours while the clocks may be the same: network delay and whole seconds move nothing', () => {
    const call = fc.record({ gapMs: fc.nat(5000), thereMs: fc.nat(3000), backMs: fc.nat(3000) });
    fc.assert(
      fc.property(fc.array(call), fc.nat(999), (calls, phase) => {
        let local = 1_760_000_000_000 + phase;
        const time = new ServerTime(() => local);
        for (const { gapMs, thereMs, backMs } of calls) {
          local += gapMs;
          const startedAt = time.start();
          local += thereMs;
          const date = header(local);
          local += backMs;
          time.answered(date, startedAt);
          assert.equal(time.offsetMs, 0);
        }
      }),
    );
  });

  test('is known to a second and the delay of one call, however far off our clock is', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -86_400_000, max: 86_400_000 }),
        fc.array(fc.record({ thereMs: fc.nat(500), backMs: fc.nat(500) }), { minLength: 1 }),
        (skewMs, calls) => {
          let truth = 1_760_000_000_123;
          const time = new ServerTime(() => truth + skewMs);
          for (const { thereMs, backMs } of calls) {
            const startedAt = time.start();
            truth += thereMs;
            const date = header(truth);
            truth += backMs;
            time.answered(date, startedAt);
            const error = Math.abs(time.now().getTime() - truth);
            assert.ok(error <= 1000 + thereMs + backMs, `off by ${error} ms`);
          }
        },
      ),
    );
  });

  test('follows a clock that is set while the operator runs', () => {
    let local = 1_760_000_000_000;
    const time = new ServerTime(() => local);
    time.answered(header(local), local);
    local += 1000 - 600_000;
    time.answered(header(1_760_000_001_000), local);
    assert.ok(Math.abs(time.offsetMs - 600_000) <= 1000, String(time.offsetMs));
    local += 1000 + 600_000;
    time.answered(header(1_760_000_002_000), local);
    assert.ok(Math.abs(time.offsetMs) <= 1000, String(time.offsetMs));
  });

  test('does not change for an answer without a date, or with a broken one', () => {
    const time = new ServerTime();
    time.answered(undefined, time.start());
    time.answered('yesterday', time.start());
    assert.equal(time.offsetMs, 0);
  });

  test('is learned from every answer of the API server, refusals too', async () => {
    const server = new FakeKube();
    const time = new ServerTime();
    const client = await server.start(time);
    server.clockMs = 600_000;
    await assert.rejects(client.request({ method: 'GET', path: '/api/v1/namespaces/n/pods/p' }));
    assert.ok(Math.abs(time.offsetMs - 600_000) < 5000, String(time.offsetMs));
    assert.ok(Math.abs(time.now().getTime() - Date.now() - 600_000) < 5000);
    await server.stop();
  });
});
