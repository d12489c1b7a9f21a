package engine

// explainCluster shows commands about nodes and replicas.
func explainCluster(c *command) (any, bool) {
	id := c.topic.id.String()
	lists := [][]int32{}
	for _, p := range c.placed {
		lists = append(lists, p.nodes)
	}
	switch c.kind {
	case registerNodeCommand:
		f := explainNode(&c.node)
		f["type"] = "register node"
		return f, true
	case removeNodeCommand:
		return explained{"type": "remove node", "node": c.node.id}, true
	case drainNodeCommand:
		return explained{"type": "drain node", "node": c.node.id, "draining": c.flags&nodeDraining != 0}, true
	case createReplicatedCommand:
		f := explainTopic(&c.topic)
		f["type"], f["replication_factor"], f["replicas"] = "create topic", c.factor, lists
		return f, true
	case addReplicatedCommand:
		return explained{"type": "add partitions", "topic_id": id, "total": c.total, "replicas": lists}, true
	case assignCommand:
		list := []explained{}
		for _, p := range c.placed {
			list = append(list, explained{"partition": p.partition, "epoch": p.epoch, "replicas": p.nodes})
		}
		return explained{"type": "assign replicas", "topic_id": id, "replication_factor": c.factor, "partitions": list}, true
	case movedCommand:
		list := []explained{}
		for _, p := range c.placed {
			list = append(list, explained{"partition": p.partition, "epoch": p.epoch})
		}
		return explained{"type": "replicas moved", "topic_id": id, "partitions": list}, true
	case topicGoneCommand:
		return explained{"type": "topic gone", "topic_id": id, "node": c.node.id}, true
	case clusterSnapshotCommand:
		nodes, topics, deleting := []explained{}, []explained{}, []explained{}
		for _, n := range c.nodes {
			nodes = append(nodes, explainNode(n))
		}
		for _, p := range c.placements {
			list := []explained{}
			for i, a := range p.replicas {
				list = append(list, explained{"partition": p.start + i, "epoch": a.epoch, "replicas": a.nodes})
			}
			topics = append(topics, explained{"topic_id": p.topic.String(), "replication_factor": p.factor, "partitions": list})
		}
		for _, w := range c.waiting {
			deleting = append(deleting, explained{"topic_id": w.topic.String(), "nodes": w.nodes})
		}
		gone := []explained{}
		for _, r := range c.removed {
			gone = append(gone, explained{"node": r.node, "directory": r.directory.String()})
		}
		f := explained{"type": "snapshot of a cluster", "last": c.flags&snapshotLast != 0, "nodes": nodes, "topics": topics, "deleting": deleting}
		if len(gone) > 0 {
			f["removed"] = gone
		}
		moves := []explained{}
		for _, m := range c.moves {
			moves = append(moves, explained{"topic_id": m.topic.String(), "partition": m.partition, "before": m.nodes})
		}
		if len(moves) > 0 {
			f["moves"] = moves
		}
		return f, true
	}
	return nil, false
}

func explainNode(n *nodeMeta) explained {
	ends := []explained{}
	for _, p := range n.endpoints {
		ends = append(ends, explained{"listener": p.Listener, "host": p.Host, "port": p.Port})
	}
	return explained{"node": n.id, "directory": n.directory.String(), "address": n.address, "endpoints": ends, "draining": n.draining}
}
