package raftrepl_test

import (
	"fmt"
	"log"

	"github.com/x/embedlog/raftrepl"
)

// A cluster has an authority, made once, whose key stays with whoever makes nodes. Each node
// gets a certificate that says which one it is.
func ExampleNewCA() {
	ca, err := raftrepl.NewCA("shop")
	if err != nil {
		log.Fatal(err)
	}
	cert, key, err := ca.Issue(1)
	if err != nil {
		log.Fatal(err)
	}
	node, err := raftrepl.New(raftrepl.Config{
		Node: 1, Cluster: "shop", Listen: "10.0.0.1:7001",
		Peers: map[int32]string{1: "10.0.0.1:7001", 2: "10.0.0.2:7001", 3: "10.0.0.3:7001"},
		TLS:   raftrepl.TLS{CA: ca.CertPEM(), Cert: cert, Key: key},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("node", node.Self(), "begins with", node.Bootstrap().Initial)
	// Output: node 1 begins with [1 2 3]
}

// What is wrong with a configuration is said before anything is opened.
func ExampleNew() {
	_, err := raftrepl.New(raftrepl.Config{Node: 1, Cluster: "shop", Listen: "10.0.0.1:7001"})
	fmt.Println(err)
	// Output: raftrepl: Listen "10.0.0.1:7001" is not loopback: it needs TLS, or AllowInsecure
}
