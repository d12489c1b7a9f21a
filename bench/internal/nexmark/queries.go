package nexmark

import (
	"context"
	"fmt"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/query"
)

// Input is what a query is made of.
type Input struct {
	Graph  *query.Graph
	Events *embedlog.Topic
	Codec  query.Codec[Event] // of the events
	Out    *embedlog.Topic    // where results that are streams go; nil where they are counted
}

// Rows is a query's result as text, by key, when all events are in.
type Rows func(ctx context.Context) (map[string]string, error)

// Query is one of the queries. Add puts it into a graph that is not started yet.
type Query struct {
	Name, About string
	Add         func(in Input) Rows
}

// Queries are all there are.
var Queries = []Query{
	{"q0", "the bids as they are, counted", addBids},
	{"q1", "prices in another currency, counted", addCurrency},
	{"q2", "bids for some auctions, by auction", addSelection},
	{"q3", "who sells of a category in some states: a join of tables by a foreign key", addLocal},
	{"q4", "average of the winning prices of each category", addCategories},
	{"q5", "auctions with the most bids of 10 s, each 2 s", addHot},
	{"q6", "average of each seller's last ten winning prices", addSellers},
	{"q7", "the highest bid of each 10 s", addHighest},
	{"q8", "who sells in the 10 s in which they registered: a join of windows", addNewSellers},
	{"q9", "the winning bid of each auction, with the auction", addWinning},
	{"q11", "bids of each bidder in sessions with a gap of 10 s", addSessions},
	{"q17", "eight aggregates of each auction's day", addStats},
	{"q18", "the last bid of each bidder for each auction", addLast},
	{"q19", "the ten highest bids of each auction", addTopTen},
	{"q20", "bids with their auction, of a category, appended to a topic", addExpanded},
}

// Named is a query by its name.
func Named(name string) (Query, bool) {
	for _, q := range Queries {
		if q.Name == name {
			return q, true
		}
	}
	return Query{}, false
}

func events(in Input) *query.Stream[int64, Event] {
	return query.From(in.Events, codec.Int64, in.Codec)
}

// bids are by their auction, as auctions are.
func bids(in Input) *query.Stream[int64, *Bid] {
	some := events(in).Filter(func(_ int64, e Event) bool { return e.Bid != nil })
	return query.MapValues(some, func(_ int64, e Event) *Bid { return e.Bid }).WithCodec(BidCodec{})
}

func auctionStream(in Input) *query.Stream[int64, *Auction] {
	some := events(in).Filter(func(_ int64, e Event) bool { return e.Auction != nil })
	return query.MapValues(some, func(_ int64, e Event) *Auction { return e.Auction }).WithCodec(AuctionCodec{})
}

func personStream(in Input) *query.Stream[int64, *Person] {
	some := events(in).Filter(func(_ int64, e Event) bool { return e.Person != nil })
	return query.MapValues(some, func(_ int64, e Event) *Person { return e.Person }).WithCodec(PersonCodec{})
}

func latest[V any](_, v V) V { return v }

// Digest is how many rows there were, and the sum of their prices.
type Digest struct{ Rows, Sum int64 }

// digest counts the rows of a stream in the one row of a view.
func digest[V any](in Input, s *query.Stream[int64, V], price func(V) int64) Rows {
	one := query.Rekey(s, codec.Int64, func(int64, V) int64 { return 0 })
	return view(in, query.Fold(one, DigestCodec{}, func(d Digest, _ int64, v V) Digest {
		return Digest{d.Rows + 1, d.Sum + price(v)}
	}, nil), nil)
}

func addBids(in Input) Rows {
	if in.Out != nil {
		return sink(in, bids(in), BidCodec{}, showBid)
	}
	return digest(in, bids(in), func(b *Bid) int64 { return b.Price })
}

// Euro is a bid in another currency.
type Euro struct{ Auction, Bidder, Price, At int64 }

func addCurrency(in Input) Rows {
	s := query.MapValues(bids(in), func(_ int64, b *Bid) Euro {
		return Euro{b.Auction, b.Bidder, b.Price * 908 / 1000, b.At}
	})
	if in.Out != nil {
		return sink(in, s, EuroCodec{}, func(e Euro) string { return fmt.Sprint(e) })
	}
	return digest(in, s, func(e Euro) int64 { return e.Price })
}

func addSelection(in Input) Rows {
	s := bids(in).Filter(func(auction int64, _ *Bid) bool { return auction%123 == 0 })
	return view(in, query.Fold(s, DigestCodec{}, func(d Digest, _ int64, b *Bid) Digest {
		return Digest{d.Rows + 1, d.Sum + b.Price}
	}, nil), nil)
}

// Local is an auction with its seller.
type Local struct {
	Auction           int64
	Name, City, State string
}

func addLocal(in Input) Rows {
	a := query.Reduce(auctionStream(in).Filter(func(_ int64, a *Auction) bool { return a.Category == 10 }), latest[*Auction])
	p := query.Reduce(personStream(in).Filter(func(_ int64, p *Person) bool { return p.State == "OR" || p.State == "ID" || p.State == "CA" }), latest[*Person])
	return view(in, query.ForeignJoin(a, p, func(_ int64, a *Auction) int64 { return a.Seller }, func(_ int64, a *Auction, p *Person) Local {
		return Local{a.ID, p.Name, p.City, p.State}
	}).WithCodec(LocalCodec{}), nil)
}

// Sold is a bid with its auction.
type Sold struct {
	Auction *Auction
	Bid     *Bid
}

// sold are the bids that came while their auction was open. An auction is known when its bids come, because they are behind it in one topic.
func sold(in Input) *query.Stream[int64, Sold] {
	a := query.Reduce(auctionStream(in), latest[*Auction])
	return query.JoinTable(bids(in), a, func(_ int64, b *Bid, a *Auction) Sold { return Sold{a, b} }).
		Filter(func(_ int64, s Sold) bool { return s.Auction.At <= s.Bid.At && s.Bid.At <= s.Auction.Expires })
}

// Sale is what an auction brought so far.
type Sale struct{ Seller, Category, Expires, Price int64 }

func sales(in Input) *query.Table[int64, Sale] {
	return query.Fold(sold(in), SaleCodec{}, func(best Sale, _ int64, s Sold) Sale {
		return Sale{s.Auction.Seller, s.Auction.Category, s.Auction.Expires, max(best.Price, s.Bid.Price)}
	}, nil)
}

func addCategories(in Input) Rows {
	by := query.GroupBy(sales(in), codec.Int64, func(_ int64, s Sale) int64 { return s.Category })
	return view(in, query.Average(by, func(_ int64, s Sale) int64 { return s.Price }), nil)
}

func addSellers(in Input) Rows {
	by := query.GroupBy(sales(in), codec.Int64, func(_ int64, s Sale) int64 { return s.Seller })
	last := query.TopN(by, 10, func(_ int64, s Sale) int64 { return s.Expires })
	return view(in, query.MapTable(last, func(_ int64, list []Sale) int64 {
		sum := int64(0)
		for _, s := range list {
			sum += s.Price
		}
		return sum / int64(len(list))
	}), nil)
}

// Hot is the auctions with the most bids of a window.
type Hot struct {
	Bids     int64
	Auctions []int64
}

func addHot(in Input) Rows {
	counts := query.Count(query.Windowed(bids(in), query.Hopping(10*time.Second, 2*time.Second)))
	byEnd := query.Map(query.Final(counts).Changes(), codec.Int64, func(k query.WindowKey[int64], n int64) (int64, Hot) {
		return k.End.UnixMilli(), Hot{n, []int64{k.Key}}
	})
	return view(in, query.Fold(byEnd, HotCodec{}, func(h Hot, _ int64, a Hot) Hot {
		switch {
		case a.Bids > h.Bids:
			return a
		case a.Bids == h.Bids:
			return Hot{h.Bids, append(h.Auctions[:len(h.Auctions):len(h.Auctions)], a.Auctions...)}
		}
		return h
	}, nil), nil)
}

// better says that a bid wins over another one: of two of a price it is the earlier one.
func better(a, b *Bid) bool { return b == nil || a.Price > b.Price }

func addHighest(in Input) Rows {
	one := query.Rekey(bids(in), codec.Int64, func(int64, *Bid) int64 { return 0 })
	best := query.Fold(query.Windowed(one, query.Tumbling(10*time.Second).Retain(time.Hour)), BidCodec{}, func(best *Bid, _ query.WindowKey[int64], b *Bid) *Bid {
		if better(b, best) {
			return b
		}
		return best
	}, nil)
	return view(in, query.Final(best), showBid)
}

func addNewSellers(in Input) Rows {
	w := query.Tumbling(10 * time.Second).Retain(time.Hour)
	by := query.Rekey(auctionStream(in), codec.Int64, func(_ int64, a *Auction) int64 { return a.Seller })
	names := query.Fold(query.Windowed(personStream(in), w), codec.String, func(_ string, _ query.WindowKey[int64], p *Person) string { return p.Name }, nil)
	return view(in, query.Join(names, query.Count(query.Windowed(by, w)), func(_ query.WindowKey[int64], name string, _ int64) string { return name }), nil)
}

func addWinning(in Input) Rows {
	return view(in, query.Fold(sold(in), SoldCodec{}, func(best Sold, _ int64, s Sold) Sold {
		if better(s.Bid, best.Bid) {
			return s
		}
		return best
	}, nil), showSold)
}

func addSessions(in Input) Rows {
	by := query.Rekey(bids(in), codec.Int64, func(_ int64, b *Bid) int64 { return b.Bidder })
	return view(in, query.CountSessions(by, query.Session(10*time.Second).Retain(time.Hour)), nil)
}

// Stats are what q17 asks for.
type Stats struct {
	Bids, Cheap, Middle, Dear int64 // below 100 dollars, below 10,000, others
	Min, Max, Sum             int64
}

// Average is the mean price.
func (s Stats) Average() int64 { return s.Sum / s.Bids }

func addStats(in Input) Rows {
	return view(in, query.Fold(query.Windowed(bids(in), query.Tumbling(24*time.Hour)), StatsCodec{}, func(s Stats, _ query.WindowKey[int64], b *Bid) Stats {
		switch {
		case b.Price < 10_000:
			s.Cheap++
		case b.Price < 1_000_000:
			s.Middle++
		default:
			s.Dear++
		}
		if s.Bids == 0 || b.Price < s.Min {
			s.Min = b.Price
		}
		s.Bids, s.Max, s.Sum = s.Bids+1, max(s.Max, b.Price), s.Sum+b.Price
		return s
	}, nil), nil)
}

// Pair is a bidder and an auction.
type Pair struct{ Bidder, Auction int64 }

func addLast(in Input) Rows {
	by := query.Rekey(bids(in), PairCodec{}, func(_ int64, b *Bid) Pair { return Pair{b.Bidder, b.Auction} })
	return view(in, query.Reduce(by, latest[*Bid]), showBid)
}

func addTopTen(in Input) Rows {
	return view(in, query.TopN(bids(in), 10, func(_ int64, b *Bid) int64 { return b.Price }), func(list []*Bid) string {
		text := ""
		for _, b := range list {
			text += showBid(b) + "\n"
		}
		return text
	})
}

func addExpanded(in Input) Rows {
	a := query.Reduce(auctionStream(in).Filter(func(_ int64, a *Auction) bool { return a.Category == 10 }), latest[*Auction])
	s := query.JoinTable(bids(in), a, func(_ int64, b *Bid, a *Auction) Sold { return Sold{a, b} })
	return sink(in, s, SoldCodec{}, showSold)
}

func showBid(b *Bid) string { return fmt.Sprintf("%+v", *b) }

func showSold(s Sold) string { return fmt.Sprintf("%+v %+v", *s.Auction, *s.Bid) }

// view has a table kept, and read as text.
func view[K, V any](in Input, t *query.Table[K, V], show func(V) string) Rows {
	v := query.Add(in.Graph, "result", t)
	return func(ctx context.Context) (map[string]string, error) {
		rows := map[string]string{}
		for row, err := range v.All(ctx) {
			if err != nil {
				return nil, err
			}
			if show == nil {
				rows[fmt.Sprint(row.Key)] = fmt.Sprintf("%+v", row.Value)
			} else {
				rows[fmt.Sprint(row.Key)] = show(row.Value)
			}
		}
		return rows, nil
	}
}

// sink appends a stream to the topic of results. Its rows are there when the graph is closed; they are told apart by their offsets.
func sink[V any](in Input, s *query.Stream[int64, V], value query.Codec[V], show func(V) string) Rows {
	query.To(in.Graph, s.WithCodec(value), in.Out)
	return func(ctx context.Context) (map[string]string, error) {
		rows := map[string]string{}
		for rec, err := range in.Out.Scan(ctx, nil) {
			if err != nil {
				return nil, err
			}
			v, err := value.Decode(rec.Value)
			if err != nil {
				return nil, err
			}
			rows[fmt.Sprint(len(rows))] = show(v)
		}
		return rows, nil
	}
}
