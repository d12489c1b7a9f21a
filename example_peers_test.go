package embedlog_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/x/embedlog"
)

// Something that each node keeps beside the log is asked for where it is. A database that
// is alone is a cluster of one.
func ExampleDB_Peers() {
	db, err := embedlog.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	peers := db.Peers()

	balances := map[string]string{"ann": "450"}
	errNobody := errors.New("nobody of that name")
	cancel, err := peers.Handle("example.com/balances", func(_ context.Context, from int32, request []byte) ([]byte, error) {
		balance, ok := balances[string(request)]
		if !ok {
			return nil, errNobody
		}
		return []byte(balance), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	defer cancel()

	for _, node := range peers.Nodes() {
		answer, err := peers.Call(context.Background(), node, "example.com/balances", []byte("ann"))
		fmt.Printf("node %d: %s %v\n", node, answer, err)
		_, err = peers.Call(context.Background(), node, "example.com/rates", nil)
		fmt.Println(errors.Is(err, embedlog.ErrNoHandler))
	}
	// Output:
	// node 0: 450 <nil>
	// true
}
