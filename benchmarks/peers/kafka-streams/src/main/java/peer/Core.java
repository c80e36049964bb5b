package peer;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * What benchmarks/peers/core.py says, in Kafka Streams: a fixed-key processor with a cached RocksDB store.
 *
 * <p>Arguments: bootstrap, topic prefix, events to drain, events before the warm lap, model file, state directory.
 */
public final class Core {
  private static final double DAY = 86_400_000.0;
  private static final double[] HALF_LIVES = {DAY, 7 * DAY, 30 * DAY};
  private static final int WIDTH = 15;
  private static final double MARGIN = 0.10;
  private static final int LOOKS = 2;
  private static final String STORE = "users";
  private static final ObjectMapper JSON = new ObjectMapper();

  @JsonIgnoreProperties(ignoreUnknown = true)
  static final class Event {
    @JsonProperty("event_id") public String eventId;
    @JsonProperty("user_id") public String userId;
    @JsonProperty("occurred_at") public long occurredAt;
    public String type;
    public double amount;
    @JsonProperty("dwell_ms") public double dwellMs;
  }

  record Change(
      @JsonProperty("user_id") String userId,
      int from,
      int to,
      @JsonProperty("occurred_at") long occurredAt,
      @JsonProperty("event_id") String eventId,
      double distance) {}

  static final class Model {
    public double[] centre;
    public double[] spread;
    public double[][] prototypes;
  }

  /** Latest event time, segment (-1: none yet), candidate, looks, then the sums: by metric, then by half-life. */
  static final class User {
    long latest;
    int segment = -1;
    int candidate = -1;
    int looks;
    final double[] sums = new double[WIDTH];

    void update(Event event) {
      long passed = event.occurredAt - latest;
      if (passed > 0) {
        latest = event.occurredAt;
      }
      double[] values = {
        1.0,
        event.dwellMs / 1000.0,
        event.type.equals("click") ? 1.0 : 0.0,
        event.type.equals("add_to_cart") ? 1.0 : 0.0,
        event.type.equals("purchase") ? event.amount : 0.0
      };
      double[] fades = new double[HALF_LIVES.length];
      for (int h = 0; h < fades.length; h++) {
        fades[h] = Math.pow(2.0, -Math.abs(passed) / HALF_LIVES[h]);
      }
      int at = 0;
      for (double value : values) {
        for (double fade : fades) {
          sums[at] = passed > 0 ? sums[at] * fade + value : sums[at] + value * fade;
          at++;
        }
      }
    }
  }

  static final class UserSerde
      implements Serde<User>, Serializer<User>, Deserializer<User> {
    private static final int BYTES = 8 + 3 * 4 + WIDTH * 8;

    @Override
    public byte[] serialize(String topic, User user) {
      if (user == null) {
        return null;
      }
      ByteBuffer out = ByteBuffer.allocate(BYTES);
      out.putLong(user.latest).putInt(user.segment).putInt(user.candidate).putInt(user.looks);
      for (double sum : user.sums) {
        out.putDouble(sum);
      }
      return out.array();
    }

    @Override
    public User deserialize(String topic, byte[] bytes) {
      if (bytes == null) {
        return null;
      }
      ByteBuffer in = ByteBuffer.wrap(bytes);
      User user = new User();
      user.latest = in.getLong();
      user.segment = in.getInt();
      user.candidate = in.getInt();
      user.looks = in.getInt();
      for (int i = 0; i < WIDTH; i++) {
        user.sums[i] = in.getDouble();
      }
      return user;
    }

    @Override
    public Serializer<User> serializer() {
      return this;
    }

    @Override
    public Deserializer<User> deserializer() {
      return this;
    }

    @Override
    public void configure(Map<String, ?> configs, boolean isKey) {}

    @Override
    public void close() {}
  }

  static final class JsonSerde<T> implements Serde<T> {
    private final Class<T> type;

    JsonSerde(Class<T> type) {
      this.type = type;
    }

    @Override
    public Serializer<T> serializer() {
      return (topic, value) -> {
        try {
          return value == null ? null : JSON.writeValueAsBytes(value);
        } catch (IOException error) {
          throw new UncheckedIOException(error);
        }
      };
    }

    @Override
    public Deserializer<T> deserializer() {
      return (topic, bytes) -> {
        try {
          return bytes == null ? null : JSON.readValue(bytes, type);
        } catch (IOException error) {
          throw new UncheckedIOException(error);
        }
      };
    }
  }

  /** Updates one user by one event, and forwards a change where the user moves. */
  static final class Segmenter implements FixedKeyProcessor<String, Event, Change> {
    private final Model model;
    private final Stopwatch watch;
    private FixedKeyProcessorContext<String, Change> context;
    private KeyValueStore<String, User> users;

    Segmenter(Model model, Stopwatch watch) {
      this.model = model;
      this.watch = watch;
    }

    @Override
    public void init(FixedKeyProcessorContext<String, Change> context) {
      this.context = context;
      users = context.getStateStore(STORE);
    }

    @Override
    public void process(FixedKeyRecord<String, Event> record) {
      watch.begin();
      Event event = record.value();
      User user = users.get(record.key());
      if (user == null) {
        user = new User();
        user.latest = event.occurredAt;
      }
      user.update(event);
      Change change = decide(user, event);
      users.put(record.key(), user);
      if (change != null) {
        context.forward(record.withValue(change));
      }
      watch.count();
    }

    private Change decide(User user, Event event) {
      double[] distances = new double[model.prototypes.length];
      int best = 0;
      for (int p = 0; p < distances.length; p++) {
        double squared = 0.0;
        for (int j = 0; j < WIDTH; j++) {
          double z = (Math.log1p(user.sums[j]) - model.centre[j]) / model.spread[j];
          double away = z - model.prototypes[p][j];
          squared += away * away;
        }
        distances[p] = Math.sqrt(squared);
        if (distances[p] < distances[best]) {
          best = p;
        }
      }
      if (user.segment >= 0) {
        if (best == user.segment || distances[best] >= (1.0 - MARGIN) * distances[user.segment]) {
          user.candidate = -1;
          user.looks = 0;
          return null;
        }
        user.looks = user.candidate == best ? user.looks + 1 : 1;
        user.candidate = best;
        if (user.looks < LOOKS) {
          return null;
        }
      }
      int left = user.segment;
      user.segment = best;
      user.candidate = -1;
      user.looks = 0;
      return new Change(
          event.userId, left, best, event.occurredAt, event.eventId, distances[best]);
    }
  }

  /** The laps of benchmarks/peers/stopwatch.py; CPU seconds are the process's, with compiler and collector. */
  static final class Stopwatch {
    private final OperatingSystemMXBean system =
        (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    private final long total;
    private final long warm;
    private final CountDownLatch done = new CountDownLatch(1);
    private long seen;
    private double[] start;
    private double[] lap;

    Stopwatch(long total, long warm) {
      this.total = total;
      this.warm = warm;
    }

    void begin() {
      if (start == null) {
        start = now();
        lap = start;
      }
    }

    void count() {
      seen++;
      if (seen == warm) {
        lap = now();
      }
      if (seen == total) {
        done.countDown();
      }
    }

    void await() throws InterruptedException {
      done.await();
    }

    String report() throws IOException {
      double[] end = now();
      Map<String, Object> laps = new LinkedHashMap<>();
      laps.put("all", difference(start, end));
      laps.put("cold", difference(start, lap));
      laps.put("warm", difference(lap, end));
      return JSON.writeValueAsString(laps);
    }

    private double[] now() {
      return new double[] {seen, System.nanoTime() / 1e9, system.getProcessCpuTime() / 1e9};
    }

    private static Map<String, Double> difference(double[] from, double[] to) {
      Map<String, Double> lap = new LinkedHashMap<>();
      lap.put("events", to[0] - from[0]);
      lap.put("wall", to[1] - from[1]);
      lap.put("cpu", to[2] - from[2]);
      return lap;
    }
  }

  public static void main(String[] arguments) throws Exception {
    Locale.setDefault(Locale.ROOT);
    String prefix = arguments[1];
    Stopwatch watch = new Stopwatch(Long.parseLong(arguments[2]), Long.parseLong(arguments[3]));
    Model model = JSON.readValue(new File(arguments[4]), Model.class);

    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "kafka-streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[5]);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

    Serde<Event> events = new JsonSerde<>(Event.class);
    Serde<Change> changes = new JsonSerde<>(Change.class);
    StreamsBuilder builder = new StreamsBuilder();
    builder.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(STORE), Serdes.String(), new UserSerde())
            .withCachingEnabled());
    builder.stream(prefix + "events", Consumed.with(Serdes.String(), events))
        .processValues(() -> new Segmenter(model, watch), STORE)
        .to(prefix + "peer-changes", Produced.with(Serdes.String(), changes));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.start();
    watch.await();
    // Closing commits what is in flight, as the last commit of the others is in their time.
    streams.close();
    System.out.println(watch.report());
  }
}
