/** The Job that reads a model's configuration before GPUs are asked for. */
import { createHash } from 'node:crypto';
import { modelEnvironment, modelReference } from './engine-container.ts';
import { cacheVolume, GPU_TAINT, ownerReference } from './engine-pod.ts';
import type { KubeObject } from './kube.ts';
import { CACHE_PATH, DESCRIBE_NAME, LABELS, OPERATOR_NAME } from './labels.ts';
import type { EngineProps } from './props.ts';
import { CONTAINER_SECURITY, VOLUME_SECURITY } from './security.ts';

/** What a description depends on: another model, image or Secret is another Job, because a Job's pods cannot be changed. */
export const describeJobName = (props: EngineProps): string => {
  const { model } = props.spec;
  const parts = [modelReference(model), props.image, model.secretRef?.name, model.cache];
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 8);
  return `${props.name}-describe-${hash}`;
};

/** Its pod answers with one line of JSON as termination message; needs no GPU and no rights. */
export function describeJob(props: EngineProps): KubeObject {
  const { name, namespace, spec, image, imagePullPolicy } = props;
  const { model, accelerator } = spec;
  const labels = {
    [LABELS.name]: DESCRIBE_NAME,
    [LABELS.instance]: name,
    [LABELS.managedBy]: OPERATOR_NAME,
    [LABELS.describes]: name,
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: describeJobName(props),
      namespace,
      labels,
      ownerReferences: [ownerReference(props)],
    },
    spec: {
      backoffLimit: 2,
      activeDeadlineSeconds: 600,
      template: {
        metadata: { labels },
        spec: {
          restartPolicy: 'Never',
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          securityContext: VOLUME_SECURITY,
          // On a cluster of GPU nodes alone it runs there, without a GPU.
          tolerations: [GPU_TAINT, ...(accelerator.tolerations ?? [])],
          containers: [
            {
              name: 'describe',
              image,
              imagePullPolicy,
              command: ['node', 'engine/describe/main.ts'],
              args: [`--model=${modelReference(model)}`, '--output=/dev/termination-log'],
              env: modelEnvironment(model),
              resources: {
                requests: { cpu: '100m', memory: '256Mi' },
                limits: { memory: '1Gi' },
              },
              securityContext: CONTAINER_SECURITY,
              terminationMessagePolicy: 'FallbackToLogsOnError',
              volumeMounts: [
                { name: 'models', mountPath: CACHE_PATH },
                { name: 'tmp', mountPath: '/tmp' },
              ],
            },
          ],
          volumes: [
            { name: 'models', ...cacheVolume(model.cache) },
            { name: 'tmp', emptyDir: {} },
          ],
        },
      },
    },
  };
}
