/** The operator's account on a cluster: it runs under the rights of an installation, never the administrator's. */
import type { KubeObject } from '#charts/kube.ts';
import { OPERATOR_NAME } from '#charts/labels.ts';
import { operatorAccess } from '#charts/operator-objects.ts';
import type { KubeClient } from '#operator/kube/client.ts';
import type { ResourceType } from '#operator/kube/resource.ts';
import type { ControlPlane } from './control-plane.ts';

const typeOf = ({ apiVersion, kind }: KubeObject): ResourceType => {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  const namespaced = ['ServiceAccount', 'Role', 'RoleBinding'].includes(kind);
  return { group, version, kind, plural: `${kind.toLowerCase()}s`, namespaced };
};

/** Makes the account with the rights that an installation grants. */
export async function grantOperatorAccess(client: KubeClient, namespace: string): Promise<void> {
  for (const object of operatorAccess({ namespace })) {
    await client.apply(typeOf(object), object, { fieldManager: 'test', force: true });
  }
}

/** A kubeconfig with a token of the account, which has to be there. Answers its path. */
export async function operatorKubeconfig(
  { client, pki, server }: ControlPlane,
  namespace: string,
  lifetimeSeconds: number,
): Promise<string> {
  const { status } = (await client.request({
    method: 'POST',
    path: `/api/v1/namespaces/${namespace}/serviceaccounts/${OPERATOR_NAME}/token`,
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: lifetimeSeconds },
    },
  })) as { status: { token: string } };
  return pki.tokenKubeconfig('operator', server, status.token);
}
