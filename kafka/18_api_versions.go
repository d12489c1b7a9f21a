package kafka

import (
	"regexp"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions, versions 0 to 5: what is spoken here. (KIP-35, KIP-511, KIP-584)

const apiVersionsKey = 18

func init() { register(0, 5, apiVersions) }

// features are what clients switch protocols by. They are finalized, and so in
// force for everybody, from the beginning.
var features = []struct {
	name     string
	min, max int16
}{
	{"group.version", 0, 1},       // groups with assignment by the server (KIP-848)
	{"metadata.version", 7, 25},   // Kafka 4.0; what it governs, a log of brokers, there is none of here
	{"share.version", 0, 1},       // share groups (KIP-932)
	{"transaction.version", 0, 2}, // an epoch for each transaction (KIP-890)
}

// softwarePattern is what a client may call itself and its version. (KIP-511)
var softwarePattern = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func apiVersions(r *request, q *kmsg.ApiVersionsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.ApiVersionsResponse)
	if q.Version >= 3 {
		if !softwarePattern.MatchString(q.ClientSoftwareName) || !softwarePattern.MatchString(q.ClientSoftwareVersion) {
			resp.ErrorCode = codeInvalidRequest
			return resp, nil
		}
		r.conn.software = q.ClientSoftwareName + " " + q.ClientSoftwareVersion
	}
	resp.ApiKeys = servedVersions()
	resp.FinalizedFeaturesEpoch = 0 // -1 would mean that none is finalized
	for _, f := range features {
		supported := kmsg.NewApiVersionsResponseSupportedFeature()
		supported.Name, supported.MinVersion, supported.MaxVersion = f.name, f.min, f.max
		if q.Version < 4 {
			// Clients of version 3 take a lowest version of 0 for an error. (KAFKA-17492)
			supported.MinVersion = max(f.min, 1)
		}
		resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
		finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
		finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = f.name, f.max, f.max
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
	}
	return resp, nil
}

// servedVersions is the table of what is served, as clients are told.
func servedVersions() []kmsg.ApiVersionsResponseApiKey {
	var list []kmsg.ApiVersionsResponseApiKey
	for _, a := range apis {
		if a == nil {
			continue
		}
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = a.key, a.advertised, a.max
		list = append(list, k)
	}
	return list
}

// unsupportedApiVersions is the answer to a version that is not served, in the
// oldest form: it names the versions that are.
func unsupportedApiVersions(r *request) kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = codeUnsupportedVersion
	resp.ApiKeys = servedVersions()
	return resp
}
