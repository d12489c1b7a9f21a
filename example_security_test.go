package embedlog_test

import (
	"context"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

func ExampleDB_SetUser() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	if err := db.SetUser(ctx, "alice", "wonderland"); err != nil {
		log.Fatal(err)
	}
	for _, u := range db.Users() {
		for _, c := range u.Credentials {
			fmt.Println(u.Name, c.Mechanism)
		}
	}
	fmt.Println(db.CheckPassword("alice", "wonderland"), db.CheckPassword("alice", "looking-glass"))
	fmt.Println(db.DeleteUser(ctx, "alice"), len(db.Users()))
	// Output:
	// alice SCRAM-SHA-256
	// alice SCRAM-SHA-512
	// true false
	// <nil> 0
}

// A user who can come in by one mechanism only.
func ExampleDB_AlterUser() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	c, err := embedlog.NewCredential(embedlog.ScramSHA512, "wonderland", 4096)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(db.AlterUser(ctx, "alice", []*embedlog.Credential{c}))
	fmt.Println(db.AlterUser(ctx, "alice", nil, embedlog.ScramSHA256))
	// Output:
	// <nil>
	// alter user: user "alice" has no credential for SCRAM-SHA-256
}

func ExampleDB_CreateACLs() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	err := db.CreateACLs(ctx,
		embedlog.ACL{Principal: "User:alice", Operation: embedlog.OpRead, Resource: embedlog.ResourceTopic, Name: "order", Pattern: embedlog.PatternPrefixed},
		embedlog.ACL{Principal: "User:*", Operation: embedlog.OpAll, Resource: embedlog.ResourceTopic, Name: "orders-secret", Permission: embedlog.Deny},
	)
	if err != nil {
		log.Fatal(err)
	}
	may := db.Authorizer(nil)
	alice := embedlog.Principal{Type: "User", Name: "alice"}
	for _, topic := range []string{"orders", "orders-secret", "payments"} {
		fmt.Println(topic, may.Authorize(ctx, alice, "127.0.0.1", embedlog.OpRead, embedlog.ResourceTopic, topic))
	}
	// Output:
	// orders true
	// orders-secret false
	// payments false
}

func ExampleDB_DeleteACLs() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	err := db.CreateACLs(ctx,
		embedlog.ACL{Principal: "User:alice", Operation: embedlog.OpRead, Resource: embedlog.ResourceTopic, Name: "orders"},
		embedlog.ACL{Principal: "User:alice", Operation: embedlog.OpRead, Resource: embedlog.ResourceGroup, Name: "billing"},
	)
	if err != nil {
		log.Fatal(err)
	}
	deleted, err := db.DeleteACLs(ctx, embedlog.ACLFilter{Resource: embedlog.ResourceGroup})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("deleted:", deleted[0])
	for _, a := range db.ACLs(embedlog.ACLFilter{}) {
		fmt.Println("left:", a)
	}
	// Output:
	// deleted: User:alice may READ GROUP "billing" (LITERAL) from *
	// left: User:alice may READ TOPIC "orders" (LITERAL) from *
}

func ExampleDB_AlterQuota() {
	ctx := context.Background()
	db := openExample()
	defer db.Close()
	everybody := embedlog.QuotaEntity{DefaultUser: true}
	err := db.AlterQuota(ctx, everybody, map[string]float64{embedlog.QuotaProducerByteRate: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	for _, q := range db.Quotas() {
		fmt.Println(q.Entity, q.Values)
	}
	fmt.Println(db.AlterQuota(ctx, everybody, nil, embedlog.QuotaProducerByteRate), len(db.Quotas()))
	// Output:
	// default user map[producer_byte_rate:1.048576e+06]
	// <nil> 0
}
