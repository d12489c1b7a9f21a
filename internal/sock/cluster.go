package sock

// Cluster is the cluster as one of its nodes sees it. (OpCluster's reply, embedlog cluster status)
type Cluster struct {
	Node      int32         `json:"node"` // the one that was asked; 0: the database is not in a cluster
	ClusterID string        `json:"cluster_id"`
	Removed   bool          `json:"removed,omitempty"` // the node was removed from the cluster
	Nodes     []ClusterNode `json:"nodes"`
	Logs      []ClusterLog  `json:"logs"` // the metadata's first
}

// ClusterNode is a node of the cluster.
type ClusterNode struct {
	Node        int32      `json:"node"`
	Address     string     `json:"address"`      // where peers find it
	DirectoryID string     `json:"directory_id"` // empty until it was there
	Endpoints   []Endpoint `json:"endpoints"`
	Alive       bool       `json:"alive"` // it was heard of a short while ago
	// CertificateEnds is in milliseconds since 1970, of the node that is asked.
	CertificateEnds int64  `json:"certificate_ends_ms,omitempty"`
	Trouble         string `json:"trouble,omitempty"` // why the node that is asked cannot reach it
	Draining        bool   `json:"draining"`
	Meta            bool   `json:"leads_metadata"`
}

// Endpoint is where a node takes calls of Kafka's clients.
type Endpoint struct {
	Listener string `json:"listener"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
}

// ClusterLog is one replicated log. What only its leader knows is left out elsewhere.
type ClusterLog struct {
	Topic     string          `json:"topic"` // empty: the metadata
	Internal  bool            `json:"internal"`
	Partition int32           `json:"partition"`
	Replicas  []int32         `json:"replicas"` // the preferred leader first
	Leader    int32           `json:"leader"`   // -1: nobody is known to lead
	Epoch     int32           `json:"leader_epoch"`
	InSync    []int32         `json:"in_sync,omitempty"`
	Members   []ClusterMember `json:"members"`
	Reason    string          `json:"reason,omitempty"`             // what is not well
	Factor    int             `json:"replication_factor,omitempty"` // how many replicas there are to be; 0 for the metadata
}

// ClusterMember is one replica of a log, as it is now; while replicas move there may be others than Replicas.
type ClusterMember struct {
	Node      int32 `json:"node"`
	Voter     bool  `json:"voter"`
	InSync    bool  `json:"in_sync"`
	Lag       int64 `json:"lag"`        // entries behind the leader; -1 is not known here
	ContactMS int64 `json:"contact_ms"` // how long ago the leader heard of it; -1 is not known here
}

// ChangeCluster is one change. Which fields count is said by Do. (OpChangeCluster)
type ChangeCluster struct {
	Do        ClusterChange `json:"do"`
	Node      int32         `json:"node,omitempty"`
	Address   string        `json:"address,omitempty"`
	Topic     string        `json:"topic,omitempty"`
	Partition int32         `json:"partition,omitempty"`
	Replicas  []int32       `json:"replicas,omitempty"`
	Factor    int           `json:"factor,omitempty"`
	Lost      bool          `json:"lost,omitempty"` // DrainNode: what only the node has is lost
}

// ClusterChange is what is to be done.
type ClusterChange string

const (
	AddNode              ClusterChange = "add"     // Node, Address
	RemoveNode           ClusterChange = "remove"  // Node
	DrainNode            ClusterChange = "drain"   // Node
	UndrainNode          ClusterChange = "undrain" // Node
	Reassign             ClusterChange = "reassign"
	SetReplicationFactor ClusterChange = "set-replication-factor" // Topic, Factor
	Recover              ClusterChange = "recover"                // Topic, empty for the metadata, Partition; Replicas are lost
	TransferLeadership   ClusterChange = "transfer-leadership"    // Topic, Partition; Node, 0 is any
	ElectPreferred       ClusterChange = "elect-preferred"        // every partition
)
