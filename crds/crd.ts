/** The CustomResourceDefinition, as it is installed. */

import { specSchema } from './nvlm-deployment.schema.ts';
import { statusSchema } from './nvlm-deployment.status.ts';
import { GROUP, KIND, PLURAL, VERSION } from './nvlm-deployment.ts';
import type { Schema } from './schema.ts';

const column = (
  name: string,
  jsonPath: string,
  description: string,
  more: { readonly type?: string; readonly priority?: number } = {},
) => ({ name, type: 'string', jsonPath, description, ...more });

const schema: Schema = {
  type: 'object',
  description: 'A vision-language model that is served on GPUs of the cluster.',
  required: ['spec'],
  properties: {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    metadata: { type: 'object' },
    spec: specSchema,
    status: statusSchema,
  },
  'x-kubernetes-validations': [
    {
      rule: 'self.metadata.name.size() <= 40',
      message:
        'metadata.name must be at most 40 characters: pods, Services and labels are named after it',
    },
    {
      rule: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
      message:
        'metadata.name must start with a letter and hold only a-z, 0-9 and -: a Service is named after it',
    },
  ],
};

export const customResourceDefinition = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: `${PLURAL}.${GROUP}` },
  spec: {
    group: GROUP,
    scope: 'Namespaced',
    names: {
      kind: KIND,
      listKind: `${KIND}List`,
      plural: PLURAL,
      singular: 'nvlmdeployment',
      shortNames: ['nvlm'],
      categories: ['all'],
    },
    versions: [
      {
        name: VERSION,
        served: true,
        storage: true,
        schema: { openAPIV3Schema: schema },
        subresources: {
          status: {},
          scale: {
            specReplicasPath: '.spec.replicas',
            statusReplicasPath: '.status.replicas',
            labelSelectorPath: '.status.selector',
          },
        },
        additionalPrinterColumns: [
          column('Model', '.spec.model.source', 'What is served.'),
          column('TP', '.spec.parallelism.tensor', 'GPUs per pod.', { type: 'integer' }),
          column('Ready', '.status.ready', 'Ready and wanted replicas.'),
          column('Queue', '.status.queueDepth', 'Requests that wait.', { type: 'integer' }),
          column('Phase', '.status.phase', 'The state in one word.'),
          column('Reason', '.status.reason', 'Why.'),
          column('Age', '.metadata.creationTimestamp', 'Since its creation.', { type: 'date' }),
          column('Revision', '.status.currentRevision', 'Of the pods.', { priority: 1 }),
          column(
            'Coldstart',
            '.status.coldStart.duration',
            'What the newest replica took from its creation until it was ready.',
            { priority: 1 },
          ),
          column('Tok/s', '.status.tokensPerSecond', 'Generated tokens a second.', {
            type: 'number',
            priority: 1,
          }),
          column(
            'Model cached',
            '.status.conditions[?(@.type=="ModelCached")].message',
            'How far engines are with the model.',
            { priority: 1 },
          ),
          column('Endpoint', '.status.endpoint', 'Address of its Service.', { priority: 1 }),
        ],
      },
    ],
  },
};
