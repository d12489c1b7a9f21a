// Command netfault lets three nodes of a cluster work as real processes, each in a network
// namespace and on a disk of its own, and does harm to them every 5 to 10 seconds.
//
//	go run ./internal/netfault -for 2m -seed 7
//
//	 namespace 1          namespace 2          namespace 3          namespace c
//	  node 1               node 2               node 3               Kafka clients of
//	  Raft, Kafka door     ...                  ...                  package soak
//	  Go door: producers,                                             |
//	  groups, readers,                                                |
//	  transactions                                                    |
//	      | veth, nft           |                    |                |
//	  ----+---------------------+--------------------+----------------+---- bridge
//	  ext4 on a loop device,   in a namespace of its own, without a way out
//	  throttled by blkio
//
// Faults are those of the kernel: SIGKILL, SIGSTOP, packets that nft drops, a disk without a
// free block, a disk that does few writes a second. One at a time is done, and healed.
//
// Whatever clients are told is noted on the host's disk, as histories of package history, also by
// those that live in the nodes and are killed with them. In the end everything is read, the histories
// are checked together, and the nodes' logs are compared frame by frame. While a majority of
// nodes is alive, runs, is connected with each other and has a disk that works, no ten seconds may
// go by without an acknowledgement.
//
// It takes root on Linux, and ip, nft, nsenter, mkfs.ext4, mount. Without them it says so and exits
// with 0, because nothing is wrong; with -must it exits with 1.
package main
