import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  authenticate,
  type FrontProxyConfig,
  readFrontProxyConfig,
} from '#operator/metrics-api/front-proxy.ts';

/** As kubeadm has it. */
const data = {
  'requestheader-client-ca-file': 'PEM',
  'requestheader-allowed-names': '["front-proxy-client"]',
  'requestheader-username-headers': '["X-Remote-User"]',
  'requestheader-uid-headers': '["X-Remote-Uid"]',
  'requestheader-group-headers': '["X-Remote-Group"]',
  'requestheader-extra-headers-prefix': '["X-Remote-Extra-"]',
};
const config = readFrontProxyConfig(data) as FrontProxyConfig;

type Socket = Parameters<typeof authenticate>[0];
const socketOf = (commonName: string | undefined, isAuthorized = true): Socket => ({
  authorized: isAuthorized,
  authorizationError: new Error('UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
  getPeerCertificate: (() =>
    commonName === undefined ? {} : { subject: { CN: commonName } }) as never,
});
const proxy = socketOf('front-proxy-client');

describe('the front proxy’s configuration', () => {
  test('is read from the ConfigMap, names of headers in lower case as Node has them', () => {
    assert.deepEqual(config, {
      authority: 'PEM',
      allowedNames: ['front-proxy-client'],
      usernameHeaders: ['x-remote-user'],
      uidHeaders: ['x-remote-uid'],
      groupHeaders: ['x-remote-group'],
      extraHeaderPrefixes: ['x-remote-extra-'],
    });
  });

  test('is absent where the cluster does not aggregate, and without lists it names nobody', () => {
    assert.equal(readFrontProxyConfig(undefined), undefined);
    assert.equal(readFrontProxyConfig({ 'client-ca-file': 'PEM' }), undefined);
    const bare = readFrontProxyConfig({ 'requestheader-client-ca-file': 'PEM' });
    assert.deepEqual(bare?.usernameHeaders, []);
    assert.ok('refusal' in authenticate(proxy, { 'x-remote-user': ['jane'] }, bare));
  });

  test('a broken list is an error and not an empty one: empty allowed names would let everybody in', () => {
    assert.throws(
      () => readFrontProxyConfig({ ...data, 'requestheader-allowed-names': '[front-proxy' }),
      SyntaxError,
    );
  });
});

describe('whoever asks is', () => {
  const refusalOf = (
    socket: Socket,
    headers = {},
    given: FrontProxyConfig | undefined = config,
  ) => {
    const user = authenticate(socket, { 'x-remote-user': ['jane'], ...headers }, given);
    return 'refusal' in user ? user.refusal : 'none';
  };

  test('refused without a certificate, with one of another authority, or under a name that may not proxy', () => {
    assert.match(refusalOf(socketOf(undefined)), /no client certificate/);
    assert.match(refusalOf(socketOf('front-proxy-client', false)), /UNABLE_TO_VERIFY/);
    assert.match(refusalOf(socketOf('kubelet')), /kubelet is not among/);
    assert.equal(refusalOf(socketOf('kubelet'), {}, { ...config, allowedNames: [] }), 'none');
  });

  test('refused while nothing is known of the front proxy, whatever the certificate', () => {
    const user = authenticate(proxy, { 'x-remote-user': ['jane'] }, undefined);
    assert.ok('refusal' in user);
  });

  test('refused when the proxy names nobody, or an empty name', () => {
    for (const headers of [{}, { 'x-remote-user': [''] }]) {
      assert.match(
        (authenticate(proxy, headers, config) as { refusal: string }).refusal,
        /named no user/,
      );
    }
  });

  test('the user of the headers, with uid, all groups and extras, their keys unescaped', () => {
    assert.deepEqual(
      authenticate(
        proxy,
        {
          'x-remote-user': ['jane'],
          'x-remote-uid': ['42'],
          'x-remote-group': ['dev', 'system:authenticated'],
          'x-remote-extra-scopes': ['a', 'b'],
          'x-remote-extra-example.com%2fproject': ['p'],
          'x-remote-extra-100%': ['raw'],
          'x-other': ['ignored'],
        },
        config,
      ),
      {
        name: 'jane',
        uid: '42',
        groups: ['dev', 'system:authenticated'],
        extra: { scopes: ['a', 'b'], 'example.com/project': ['p'], '100%': ['raw'] },
      },
    );
  });

  test('not split at commas: the name and groups of an X.509 or OIDC user may hold them', () => {
    const user = authenticate(
      proxy,
      { 'x-remote-user': ['admin,jane'], 'x-remote-group': ['dev, system:masters'] },
      config,
    );
    assert.deepEqual(user, { name: 'admin,jane', groups: ['dev, system:masters'], extra: {} });
  });
});
