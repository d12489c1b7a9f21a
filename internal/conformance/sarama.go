package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/x/embedlog/kafka"
)

// saramaClient runs rounds of IBM/sarama, each as the oldest Kafka that it speaks by
// default and as the newest that it knows: it sends other versions of its requests.
func saramaClient(ctx context.Context, r *run) (o outcome, err error) {
	s, err := serve(r, "sarama", kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		return o, err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	for _, version := range []sarama.KafkaVersion{sarama.DefaultVersion, sarama.MaxVersion} {
		k := &saramaRun{ctx: ctx, addrs: []string{s.addr(0)}, version: version}
		for _, round := range []struct {
			name string
			run  func() error
		}{
			{"topics and their settings", k.admin},
			{"idempotent batches of all codecs", k.codecs},
			{"a group whose members come and go", k.group},
			{"transactions with offsets", k.transaction},
			{"offsets by time, deleted records", k.offsets},
			{"users, quotas and ACLs", k.security},
		} {
			if err := round.run(); err != nil {
				o.failed = append(o.failed, fmt.Sprintf("%s as %s: %v", round.name, version, err))
				continue
			}
			o.passed++
		}
	}
	return o, nil
}

type saramaRun struct {
	ctx     context.Context
	addrs   []string
	version sarama.KafkaVersion
}

func (k *saramaRun) config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = k.version
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRoundRobin()}
	return c
}

func (k *saramaRun) name(what string) string { return what + "-" + k.version.String() }

// topic makes a topic with the administrator, and returns him.
func (k *saramaRun) topic(name string, partitions int32) (sarama.ClusterAdmin, error) {
	admin, err := sarama.NewClusterAdmin(k.addrs, k.config())
	if err != nil {
		return nil, err
	}
	if err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
		admin.Close()
		return nil, err
	}
	return admin, nil
}

func (k *saramaRun) admin() error {
	topic := k.name("admin")
	admin, err := k.topic(topic, 3)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return fmt.Errorf("a topic that there is was made again: %v", err)
	}
	if err := admin.CreatePartitions(topic, 5, nil, false); err != nil {
		return err
	}
	about, err := admin.DescribeTopics([]string{topic})
	if err != nil {
		return err
	}
	if len(about) != 1 || len(about[0].Partitions) != 5 {
		return fmt.Errorf("described as %+v, want 5 partitions", about)
	}
	value := "12345678"
	set := map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}
	if err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, set, false); err != nil {
		return err
	}
	configs, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
	if err != nil {
		return err
	}
	if len(configs) != 1 || configs[0].Value != value || configs[0].Default {
		return fmt.Errorf("retention.ms is %+v, want %s", configs, value)
	}
	brokers, controller, err := admin.DescribeCluster()
	if err != nil || len(brokers) != 1 || brokers[0].ID() != controller {
		return fmt.Errorf("the cluster has %d brokers, its controller is %d: %w", len(brokers), controller, err)
	}
	if _, err := admin.DescribeLogDirs([]int32{controller}); err != nil {
		return err
	}
	return admin.DeleteTopic(topic)
}

// read reads n messages of a partition from its start.
func (k *saramaRun) read(topic string, c *sarama.Config, n int) ([]*sarama.ConsumerMessage, error) {
	consumer, err := sarama.NewConsumer(k.addrs, c)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	part, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	defer part.Close()
	limit := time.After(30 * time.Second)
	var got []*sarama.ConsumerMessage
	for len(got) < n {
		select {
		case m := <-part.Messages():
			got = append(got, m)
		case <-limit:
			return got, fmt.Errorf("%d of %d messages after 30 s", len(got), n)
		}
	}
	return got, nil
}

func (k *saramaRun) codecs() error {
	topic := k.name("codecs")
	admin, err := k.topic(topic, 1)
	if err != nil {
		return err
	}
	defer admin.Close()
	codecs := []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD}
	for _, codec := range codecs {
		c := k.config()
		c.Producer.Compression, c.Producer.Idempotent, c.Producer.RequiredAcks, c.Net.MaxOpenRequests = codec, true, sarama.WaitForAll, 1
		producer, err := sarama.NewSyncProducer(k.addrs, c)
		if err != nil {
			return err
		}
		var batch []*sarama.ProducerMessage
		for i := range 100 {
			batch = append(batch, &sarama.ProducerMessage{
				Topic: topic, Key: sarama.StringEncoder(codec.String()), Value: sarama.StringEncoder(fmt.Sprint(i)),
				Headers: []sarama.RecordHeader{{Key: []byte("codec"), Value: []byte(codec.String())}},
			})
		}
		err = errors.Join(producer.SendMessages(batch), producer.Close())
		if err != nil {
			return fmt.Errorf("%v: %w", codec, err)
		}
	}
	got, err := k.read(topic, k.config(), 100*len(codecs))
	if err != nil {
		return err
	}
	for i, m := range got {
		codec := codecs[i/100].String()
		if m.Offset != int64(i) || string(m.Key) != codec || string(m.Value) != fmt.Sprint(i%100) || len(m.Headers) != 1 || string(m.Headers[0].Value) != codec {
			return fmt.Errorf("message %d is %+v, of codec %s", i, m, codec)
		}
	}
	return nil
}

// saramaMember counts what it is handed, by value.
type saramaMember struct {
	mu   *sync.Mutex
	got  map[string]int
	all  chan struct{} // closed when got holds want of them
	want int
}

func (saramaMember) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaMember) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for msg := range claim.Messages() {
		m.mu.Lock()
		m.got[string(msg.Value)]++
		session.MarkMessage(msg, "")
		if len(m.got) == m.want && m.all != nil {
			select {
			case <-m.all:
			default:
				close(m.all)
			}
		}
		m.mu.Unlock()
	}
	return nil
}

// consume lets members of a group consume until they have had want values.
func (k *saramaRun) consume(group, topic string, members, want int) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(k.ctx, time.Minute)
	defer cancel()
	m := saramaMember{&sync.Mutex{}, map[string]int{}, make(chan struct{}), want}
	var wait sync.WaitGroup
	var bad error
	for range members {
		g, err := sarama.NewConsumerGroup(k.addrs, group, k.config())
		if err != nil {
			return nil, err
		}
		wait.Go(func() {
			for ctx.Err() == nil {
				if err := g.Consume(ctx, []string{topic}, m); err != nil && ctx.Err() == nil {
					m.mu.Lock()
					bad = errors.Join(bad, err)
					m.mu.Unlock()
					break
				}
			}
			g.Close()
		})
	}
	select {
	case <-m.all:
	case <-ctx.Done():
		bad = errors.Join(bad, ctx.Err())
	}
	cancel()
	wait.Wait()
	return m.got, bad
}

// send sends values to the partitions of a topic by turns.
func (k *saramaRun) send(topic string, partitions int, values ...string) error {
	producer, err := sarama.NewSyncProducer(k.addrs, k.config())
	if err != nil {
		return err
	}
	defer producer.Close()
	var batch []*sarama.ProducerMessage
	for i, v := range values {
		batch = append(batch, &sarama.ProducerMessage{Topic: topic, Partition: int32(i % partitions), Value: sarama.StringEncoder(v)})
	}
	return producer.SendMessages(batch)
}

func (k *saramaRun) group() error {
	topic, group := k.name("grouped"), k.name("group")
	admin, err := k.topic(topic, 4)
	if err != nil {
		return err
	}
	defer admin.Close()
	for round, members := range []int{2, 1, 3} {
		var values []string
		for i := range 300 {
			values = append(values, fmt.Sprintf("%d.%d", round, i))
		}
		if err := k.send(topic, 4, values...); err != nil {
			return err
		}
		// Each member commits when it leaves: the next ones begin where they ended.
		got, err := k.consume(group, topic, members, len(values))
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		for _, v := range values {
			if got[v] == 0 {
				return fmt.Errorf("round %d: nobody has had %s", round, v)
			}
		}
		if len(got) != len(values) {
			return fmt.Errorf("round %d: %d values, want %d: those of an earlier round came again", round, len(got), len(values))
		}
	}
	about, err := admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return err
	}
	if len(about) != 1 || about[0].State != "Empty" || about[0].ProtocolType != "consumer" {
		return fmt.Errorf("described as %+v", about[0])
	}
	at, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
	if err != nil {
		return err
	}
	for p := range int32(4) {
		if b := at.GetBlock(topic, p); b == nil || b.Offset != 225 {
			return fmt.Errorf("position of partition %d is %+v, want 225", p, b)
		}
	}
	groups, err := admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	if groups[group] != "consumer" {
		return fmt.Errorf("groups %v lack %s", groups, group)
	}
	return admin.DeleteConsumerGroup(group)
}

func (k *saramaRun) transaction() error {
	topic, group := k.name("txn"), k.name("txn-group")
	admin, err := k.topic(topic, 1)
	if err != nil {
		return err
	}
	defer admin.Close()
	c := k.config()
	c.Producer.Idempotent, c.Producer.RequiredAcks, c.Net.MaxOpenRequests = true, sarama.WaitForAll, 1
	c.Producer.Transaction.ID = k.name("txn-id")
	producer, err := sarama.NewSyncProducer(k.addrs, c)
	if err != nil {
		return err
	}
	defer producer.Close()
	for i := range 4 {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprint(i))}); err != nil {
			return err
		}
		at := map[string][]*sarama.PartitionOffsetMetadata{topic: {{Partition: 0, Offset: int64(i), LeaderEpoch: -1}}}
		if err := producer.AddOffsetsToTxn(at, group); err != nil {
			return err
		}
		if end := []func() error{producer.CommitTxn, producer.AbortTxn}[i%2]; end() != nil {
			return fmt.Errorf("transaction %d does not end: %v", i, producer.TxnStatus())
		}
	}
	c = k.config()
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	got, err := k.read(topic, c, 2)
	if err != nil {
		return err
	}
	if string(got[0].Value) != "0" || string(got[1].Value) != "2" {
		return fmt.Errorf("committed are %s and %s, want 0 and 2", got[0].Value, got[1].Value)
	}
	at, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	if err != nil {
		return err
	}
	if b := at.GetBlock(topic, 0); b == nil || b.Offset != 2 {
		return fmt.Errorf("the group's position is %+v, want 2", b)
	}
	return nil
}

func (k *saramaRun) offsets() error {
	topic := k.name("offsets")
	admin, err := k.topic(topic, 1)
	if err != nil {
		return err
	}
	defer admin.Close()
	before := time.Now().Add(-time.Minute)
	if err := k.send(topic, 1, "a", "b", "c"); err != nil {
		return err
	}
	client, err := sarama.NewClient(k.addrs, k.config())
	if err != nil {
		return err
	}
	defer client.Close()
	for _, row := range []struct{ at, want int64 }{
		{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, 3}, {before.UnixMilli(), 0}, {time.Now().Add(time.Hour).UnixMilli(), -1},
	} {
		if got, err := client.GetOffset(topic, 0, row.at); err != nil || got != row.want {
			return fmt.Errorf("the offset at %d is %d, %v, want %d", row.at, got, err, row.want)
		}
	}
	if err := admin.DeleteRecords(topic, map[int32]int64{0: 2}); err != nil {
		return err
	}
	if got, err := client.GetOffset(topic, 0, sarama.OffsetOldest); err != nil || got != 2 {
		return fmt.Errorf("the first offset after records were deleted is %d, %v, want 2", got, err)
	}
	return nil
}

func (k *saramaRun) security() error {
	admin, err := sarama.NewClusterAdmin(k.addrs, k.config())
	if err != nil {
		return err
	}
	defer admin.Close()
	user := k.name("user")
	done, err := admin.UpsertUserScramCredentials([]sarama.AlterUserScramCredentialsUpsert{{
		Name: user, Mechanism: sarama.SCRAM_MECHANISM_SHA_512, Iterations: 8192, Salt: []byte("some salt"), Password: []byte("secret"),
	}})
	if err != nil || len(done) != 1 || done[0].ErrorCode != sarama.ErrNoError {
		return fmt.Errorf("make a user: %+v, %w", done, err)
	}
	users, err := admin.DescribeUserScramCredentials([]string{user})
	if err != nil || len(users) != 1 || len(users[0].CredentialInfos) != 1 || users[0].CredentialInfos[0].Iterations != 8192 {
		return fmt.Errorf("the user is %+v, %w", users, err)
	}
	entity := []sarama.QuotaEntityComponent{{EntityType: sarama.QuotaEntityUser, MatchType: sarama.QuotaMatchExact, Name: user}}
	if err := admin.AlterClientQuotas(entity, sarama.ClientQuotasOp{Key: "producer_byte_rate", Value: 1 << 20}, false); err != nil {
		return err
	}
	quotas, err := admin.DescribeClientQuotas([]sarama.QuotaFilterComponent{{EntityType: sarama.QuotaEntityUser, MatchType: sarama.QuotaMatchExact, Match: user}}, true)
	if err != nil || len(quotas) != 1 || quotas[0].Values["producer_byte_rate"] != 1<<20 {
		return fmt.Errorf("the quotas are %+v, %w", quotas, err)
	}
	what := sarama.Resource{ResourceType: sarama.AclResourceTopic, ResourceName: k.name("acl"), ResourcePatternType: sarama.AclPatternPrefixed}
	who := sarama.Acl{Principal: "User:" + user, Host: "*", Operation: sarama.AclOperationWrite, PermissionType: sarama.AclPermissionAllow}
	if err := admin.CreateACL(what, who); err != nil {
		return err
	}
	filter := sarama.AclFilter{
		ResourceType: sarama.AclResourceTopic, ResourceName: &what.ResourceName, ResourcePatternTypeFilter: sarama.AclPatternPrefixed,
		Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny,
	}
	acls, err := admin.ListAcls(filter)
	if err != nil || len(acls) != 1 || !slices.ContainsFunc(acls[0].Acls, func(a *sarama.Acl) bool { return *a == who }) {
		return fmt.Errorf("the ACLs are %+v, %w", acls, err)
	}
	gone, err := admin.DeleteACL(filter, false)
	if err != nil || len(gone) != 1 {
		return fmt.Errorf("deleted are %+v, %w", gone, err)
	}
	return nil
}
