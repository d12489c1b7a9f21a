package engine

import (
	"encoding/json"
	"testing"

	"github.com/x/embedlog/log"
)

// What is printed of users, ACLs and quotas has names and no keys.
func TestExplainSecurity(t *testing.T) {
	want := map[string]string{
		"alter user":        `{"credentials":[{"iterations":4096,"mechanism":"SCRAM-SHA-256"}],"remove":["SCRAM-SHA-512"],"type":"alter user","user":"al"}`,
		"delete ACLs":       `{"acls":[{"host":"*","name":"orders","operation":"READ","pattern_type":"LITERAL","permission":"ALLOW","principal":"User:a","resource_type":"TOPIC"}],"type":"delete ACLs"}`,
		"alter quota":       `{"entity":{"client-id":null,"user":"al"},"type":"alter quota","unset":["c"],"values":{"a":1,"b":0.5}}`,
		"snapshot of users": `{"acls":[{"host":"*","name":"orders","operation":"READ","pattern_type":"LITERAL","permission":"ALLOW","principal":"User:a","resource_type":"TOPIC"}],"last":true,"quotas":[{"entity":{"ip":null},"values":{"a":1}}],"type":"snapshot of users","users":[{"credentials":[{"iterations":4096,"mechanism":"SCRAM-SHA-256"}],"user":"al"}]}`,
	}
	for _, row := range commandTable {
		v, ok := Explainer("meta")(&log.Record{Value: []byte(row.want)})
		if !ok {
			t.Errorf("%s is not known", row.name)
			continue
		}
		b, err := json.Marshal(v)
		if w := want[row.name]; err != nil || w != "" && string(b) != w {
			t.Errorf("%s: %v\n got %s\nwant %s", row.name, err, b, w)
		}
		delete(want, row.name)
	}
	if len(want) > 0 {
		t.Errorf("not in the table: %v", want)
	}
}
