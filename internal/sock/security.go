package sock

// User is a user without what is stored of the password. (OpUsers, embedlog user list)
type User struct {
	User        string       `json:"user"`
	Credentials []Credential `json:"credentials"`
}

// Credential is a way for a user to come in.
type Credential struct {
	Mechanism  string `json:"mechanism"` // SCRAM-SHA-256
	Iterations int    `json:"iterations"`
}

// SetUser makes a user, or gives one another password. (OpSetUser)
type SetUser struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Exists   bool   `json:"exists"` // the user is there already; otherwise must not be
}

// UserName names a user. (OpDeleteUser)
type UserName struct {
	User string `json:"user"`
}

// ACL is an ACL in Kafka's words. As a filter, what is empty is any. (OpACLs,
// OpCreateACLs, OpDeleteACLs, embedlog acl list)
type ACL struct {
	ResourceType string `json:"resource_type"` // TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID
	PatternType  string `json:"pattern_type"`  // LITERAL, PREFIXED; MATCH in a filter
	Name         string `json:"name"`
	Principal    string `json:"principal"` // User:alice
	Host         string `json:"host"`
	Operation    string `json:"operation"`
	Permission   string `json:"permission"` // ALLOW, DENY
}
