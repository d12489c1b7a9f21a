package kafka

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// attributeNames are the attributes that have a name in RFC 2253; others are written
// as numbers. Kafka's principals are what Java's X500Principal.getName writes.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

// distinguishedName writes the name of a certificate, as DER, in the form of RFC
// 2253, the last part first: CN=alice,OU=billing,O=Example.
// pkix.Name.String does not do: it forgets the order, and the name of DC.
func distinguishedName(der []byte) (string, error) {
	var seq []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("the certificate's name: %w", errors.Join(err, errNotWhole))
	}
	var b strings.Builder
	for i := len(seq) - 1; i >= 0; i-- {
		var set []pkix.AttributeTypeAndValue
		var raw []struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if rest, err := asn1.UnmarshalWithParams(seq[i].FullBytes, &raw, "set"); err != nil || len(rest) > 0 {
			return "", fmt.Errorf("the certificate's name: %w", errors.Join(err, errNotWhole))
		}
		if rest, err := asn1.UnmarshalWithParams(seq[i].FullBytes, &set, "set"); err != nil || len(rest) > 0 {
			return "", fmt.Errorf("the certificate's name: %w", errors.Join(err, errNotWhole))
		}
		if i < len(seq)-1 {
			b.WriteByte(',')
		}
		for j := range set {
			if j > 0 {
				b.WriteByte('+')
			}
			oid := set[j].Type.String()
			value, isText := set[j].Value.(string)
			name, named := attributeNames[oid]
			if !named || !isText || !utf8.ValidString(value) {
				fmt.Fprintf(&b, "%s=#%s", oid, hex.EncodeToString(raw[j].Value.FullBytes))
				continue
			}
			b.WriteString(name)
			b.WriteByte('=')
			b.WriteString(escapeDN(value))
		}
	}
	return b.String(), nil
}

var errNotWhole = errors.New("it is not of the form of a name")

// escapeDN escapes a value for a distinguished name. (RFC 2253 section 2.4)
func escapeDN(s string) string {
	var b strings.Builder
	for i, c := range s {
		switch {
		case strings.ContainsRune(`,+"\<>;`, c), c == '#' && i == 0, c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
