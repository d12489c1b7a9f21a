// Package acl has the words for who may do what, and Kafka's rules for them: every
// door asks an Authorizer, and Rules is the one that decides by access control lists.
//
//	principal   from host   may or must not   do operation   to resource
//	User:alice  *           ALLOW             READ           TOPIC orders (LITERAL)
//	User:*      10.0.0.9    DENY              ALL            TOPIC pay.   (PREFIXED)
//
// # The rules
//
//   - An ACL is about a resource when its pattern matches the resource's name: LITERAL
//     the same name, or any for the name "*"; PREFIXED all names that begin with it.
//   - It counts for a principal when it names it or is for User:*, and when its host is
//     the client's or "*".
//   - A DENY of the operation, or of ALL, decides: whatever is allowed elsewhere.
//   - An ALLOW of the operation or of ALL allows it; ALLOW of READ, WRITE, DELETE and
//     ALTER also allows DESCRIBE, and ALTER_CONFIGS also DESCRIBE_CONFIGS.
//   - What nothing allows is denied.
//
// A Set is looked up by several goroutines at once as long as nobody changes it.
package acl
