// Checks of a Kafka listener with kafkajs: node run.mjs HOST:PORT
import assert from 'node:assert/strict'
import kafkajs from 'kafkajs' // a CommonJS module, of which Node.js does not see every name

const {
  AclOperationTypes, AclPermissionTypes, AclResourceTypes, CompressionTypes, ConfigResourceTypes,
  Kafka, logLevel, ResourcePatternTypes,
} = kafkajs

const kafka = new Kafka({
  clientId: 'conformance',
  brokers: [process.argv[2]],
  logLevel: logLevel.NOTHING,
  retry: { retries: 5, initialRetryTime: 100 },
})
const admin = kafka.admin()

let failed = 0
async function check(name, run) {
  try {
    await run()
    console.log(`ok ${name}`)
  } catch (e) {
    failed++
    console.log(`not ok ${name}: ${String(e.stack ?? e).split('\n').slice(0, 4).join(' | ')}`)
  }
}

// consume reads n messages of a topic in a group, from the beginning of a new one.
async function consume(topic, groupId, n, options = {}) {
  const consumer = kafka.consumer({ groupId, ...options })
  const got = []
  try {
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${got.length} of ${n} messages after 30 s`)), 30_000)
      consumer.on(consumer.events.CRASH, e => reject(e.payload.error))
      consumer.run({
        eachMessage: async ({ partition, message }) => {
          got.push({ partition, offset: message.offset, key: message.key?.toString(), value: message.value?.toString(), headers: message.headers })
          if (got.length === n) {
            clearTimeout(timer)
            resolve()
          }
        },
      }).catch(reject)
    })
  } finally {
    await consumer.disconnect()
  }
  return got
}

await admin.connect()

await check('describe the cluster', async () => {
  const c = await admin.describeCluster()
  assert.equal(c.brokers.length, 1)
  assert.ok(c.clusterId)
})

await check('create topics', async () => {
  assert.equal(await admin.createTopics({
    topics: [
      { topic: 'orders', numPartitions: 3, configEntries: [{ name: 'retention.ms', value: '86400000' }] },
      { topic: 'balances', numPartitions: 1 },
    ],
  }), true)
  assert.equal(await admin.createTopics({ topics: [{ topic: 'orders' }] }), false)
  const topics = await admin.listTopics()
  assert.ok(topics.includes('orders') && topics.includes('balances'))
  const meta = await admin.fetchTopicMetadata({ topics: ['orders'] })
  assert.equal(meta.topics[0].partitions.length, 3)
})

await check('an illegal name is refused', async () => {
  await assert.rejects(admin.createTopics({ topics: [{ topic: 'no/slash' }] }))
})

await check('describe and alter configs', async () => {
  const describe = async () => {
    const d = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'orders' }] })
    return Object.fromEntries(d.resources[0].configEntries.map(e => [e.configName, e.configValue]))
  }
  assert.equal((await describe())['retention.ms'], '86400000')
  await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: 'orders', configEntries: [{ name: 'retention.ms', value: '3600000' }] }] })
  assert.equal((await describe())['retention.ms'], '3600000')
})

await check('idempotent produce with gzip, keys and headers', async () => {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const messages = Array.from({ length: 100 }, (_, i) => ({ key: `k${i % 10}`, value: `v${i}`, headers: { n: String(i) } }))
  await producer.send({ topic: 'orders', compression: CompressionTypes.GZIP, acks: -1, messages })
  await producer.disconnect()
  const got = await consume('orders', 'readers', 100)
  assert.deepEqual(got.map(m => m.value).sort(), messages.map(m => m.value).sort())
  for (const k of new Set(messages.map(m => m.key))) { // in order per key
    assert.deepEqual(got.filter(m => m.key === k).map(m => m.value), messages.filter(m => m.key === k).map(m => m.value))
  }
  assert.ok(got.every(m => m.headers.n.toString() === m.value.slice(1)))
})

await check('offsets of topics and groups', async () => {
  const ends = await admin.fetchTopicOffsets('orders')
  assert.equal(ends.reduce((n, p) => n + Number(p.high), 0), 100)
  const committed = await admin.fetchOffsets({ groupId: 'readers', topics: ['orders'] })
  assert.equal(committed[0].partitions.reduce((n, p) => n + Math.max(0, Number(p.offset)), 0), 100)
  const future = await admin.fetchTopicOffsetsByTimestamp('orders', Date.now() + 3_600_000)
  assert.equal(future.reduce((n, p) => n + Number(p.offset), 0), 100)
  await admin.resetOffsets({ groupId: 'readers', topic: 'orders', earliest: true })
  assert.equal((await consume('orders', 'readers', 100)).length, 100)
  await admin.setOffsets({ groupId: 'readers', topic: 'orders', partitions: [{ partition: 0, offset: '1' }] })
  const set = await admin.fetchOffsets({ groupId: 'readers', topics: ['orders'] })
  assert.equal(set[0].partitions.find(p => p.partition === 0).offset, '1')
})

await check('a group of two shares the partitions', async () => {
  const consumers = [0, 1].map(() => kafka.consumer({ groupId: 'pair', sessionTimeout: 10_000, heartbeatInterval: 500 }))
  const assigned = [null, null]
  try {
    await Promise.all(consumers.map(async (c, i) => {
      await c.connect()
      c.on(c.events.GROUP_JOIN, e => { assigned[i] = e.payload.memberAssignment.orders ?? [] })
      await c.subscribe({ topic: 'orders', fromBeginning: true })
      await c.run({ eachMessage: async () => {} })
    }))
    const until = Date.now() + 30_000
    const all = () => [...(assigned[0] ?? []), ...(assigned[1] ?? [])].sort().join()
    while (!(assigned[0]?.length && assigned[1]?.length && all() === '0,1,2')) {
      assert.ok(Date.now() < until, `assigned ${JSON.stringify(assigned)}`)
      await new Promise(r => setTimeout(r, 50))
    }
    const d = (await admin.describeGroups(['pair'])).groups[0]
    assert.equal(d.state, 'Stable')
    assert.equal(d.members.length, 2)
    assert.equal(d.protocolType, 'consumer')
  } finally {
    await Promise.all(consumers.map(c => c.disconnect()))
  }
})

await check('transactions with offsets: abort and commit', async () => {
  const producer = kafka.producer({ transactionalId: 'tx', idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const aborted = await producer.transaction()
  await aborted.send({ topic: 'balances', messages: [{ value: 'aborted' }] })
  await aborted.sendOffsets({ consumerGroupId: 'settled', topics: [{ topic: 'orders', partitions: [{ partition: 0, offset: '7' }] }] })
  await aborted.abort()
  const none = await admin.fetchOffsets({ groupId: 'settled', topics: ['orders'] })
  assert.ok(none[0].partitions.every(p => Number(p.offset) === -1))
  const committed = await producer.transaction()
  await committed.send({ topic: 'balances', messages: [{ value: 'one' }, { value: 'two' }] })
  await committed.sendOffsets({ consumerGroupId: 'settled', topics: [{ topic: 'orders', partitions: [{ partition: 0, offset: '5' }] }] })
  await committed.commit()
  await producer.disconnect()
  const got = await consume('balances', 'committed', 2) // kafkajs reads committed records by default
  assert.deepEqual(got.map(m => m.value), ['one', 'two'])
  const offsets = await admin.fetchOffsets({ groupId: 'settled', topics: ['orders'] })
  assert.equal(offsets[0].partitions.find(p => p.partition === 0).offset, '5')
})

await check('more partitions', async () => {
  await admin.createPartitions({ topicPartitions: [{ topic: 'balances', count: 4 }] })
  const meta = await admin.fetchTopicMetadata({ topics: ['balances'] })
  assert.equal(meta.topics[0].partitions.length, 4)
})

await check('delete records', async () => {
  const [before] = (await admin.fetchTopicOffsets('balances')).filter(p => p.partition === 0)
  await admin.deleteTopicRecords({ topic: 'balances', partitions: [{ partition: 0, offset: '-1' }] })
  const [after] = (await admin.fetchTopicOffsets('balances')).filter(p => p.partition === 0)
  assert.equal(after.low, before.high)
})

await check('list and delete groups', async () => {
  const { groups } = await admin.listGroups()
  const ids = groups.map(g => g.groupId)
  assert.ok(ids.includes('readers') && ids.includes('pair'))
  await admin.deleteGroups(['readers', 'pair'])
  const left = (await admin.listGroups()).groups.map(g => g.groupId)
  assert.ok(!left.includes('readers') && !left.includes('pair'))
})

await check('access control lists', async () => {
  const acl = {
    resourceType: AclResourceTypes.TOPIC, resourceName: 'orders', resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: 'User:reader', host: '*', operation: AclOperationTypes.READ, permissionType: AclPermissionTypes.ALLOW,
  }
  await admin.createAcls({ acl: [acl] })
  const filter = {
    resourceType: AclResourceTypes.TOPIC, resourceName: 'orders', resourcePatternType: ResourcePatternTypes.LITERAL,
    operation: AclOperationTypes.ANY, permissionType: AclPermissionTypes.ANY,
  }
  const { resources } = await admin.describeAcls(filter)
  assert.equal(resources[0].acls[0].principal, 'User:reader')
  const { filterResponses } = await admin.deleteAcls({ filters: [filter] })
  assert.equal(filterResponses[0].matchingAcls.length, 1)
})

await check('reassignments', async () => {
  const { topics } = await admin.listPartitionReassignments({ topics: [{ topic: 'orders', partitions: [0] }] })
  assert.equal(topics.length, 0)
})

await check('delete topics', async () => {
  await admin.deleteTopics({ topics: ['orders', 'balances'] })
  const topics = await admin.listTopics()
  assert.ok(!topics.includes('orders'))
})

await admin.disconnect()
console.log('end')
process.exit(failed ? 1 : 0)
