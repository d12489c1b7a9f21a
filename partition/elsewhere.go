package partition

// Elsewhere is a partition that this node has no replica of. It holds nothing; reads,
// appends and Err answer a *NotLeaderError that names the leader, -1 where none is known.
func Elsewhere(leader, epoch int32, address string) *Partition {
	return Failed(&NotLeaderError{Leader: leader, LeaderEpoch: epoch, Address: address})
}
