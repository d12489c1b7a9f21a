package kafka

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster, versions 0 to 2. (KIP-700, KIP-919, KIP-1073)

func init() { register(0, 2, describeCluster) }

// Endpoint types: what a client thinks that it talks to.
const (
	endpointBroker     = 1
	endpointController = 2
)

func describeCluster(r *request, q *kmsg.DescribeClusterRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.Brokers = []kmsg.DescribeClusterResponseBroker{}
	resp.ControllerID, resp.ClusterAuthorizedOperations = -1, math.MinInt32
	resp.EndpointType = endpointBroker
	if q.Version >= 1 && q.EndpointType != endpointBroker {
		err := refuse(codeUnsupportedEndpointType, "Unsupported endpoint type %d", q.EndpointType)
		if q.EndpointType == endpointController {
			err = refuse(codeMismatchedEndpointType, "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
		}
		resp.ErrorCode, resp.ErrorMessage = answerTo(err)
		return resp, nil
	}
	resp.ClusterID, resp.ControllerID = r.srv.clusterID, r.controller()
	for _, b := range r.brokers() {
		broker := kmsg.NewDescribeClusterResponseBroker()
		broker.NodeID, broker.Host, broker.Port = b.id, b.host, b.port
		resp.Brokers = append(resp.Brokers, broker)
	}
	if q.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = 0
		if r.authorize(OpDescribe, ResourceCluster, ClusterName) {
			resp.ClusterAuthorizedOperations = r.operations(ResourceCluster, ClusterName, clusterOperations...)
		}
	}
	return resp, nil
}
