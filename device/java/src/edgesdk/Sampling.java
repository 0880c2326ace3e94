package edgesdk;

/** How the next token is chosen. A new one is greedy: it always takes the likeliest token. */
public final class Sampling {
    float temperature;
    int topK;
    float topP;
    float minP;
    float repetitionPenalty;
    long seed;

    /** 0 is greedy. */
    public Sampling temperature(float temperature) {
        this.temperature = temperature;
        return this;
    }

    /** Sample from the k likeliest tokens; 0: off. */
    public Sampling topK(int topK) {
        this.topK = topK;
        return this;
    }

    /** Sample from this share of probability; 0 or 1: off. */
    public Sampling topP(float topP) {
        this.topP = topP;
        return this;
    }

    /** Drop tokens below this share of the likeliest; 0: off. */
    public Sampling minP(float minP) {
        this.minP = minP;
        return this;
    }

    /** Above 1 repeats less; 0 or 1: off. */
    public Sampling repetitionPenalty(float repetitionPenalty) {
        this.repetitionPenalty = repetitionPenalty;
        return this;
    }

    /** The same seed gives the same text. */
    public Sampling seed(long seed) {
        this.seed = seed;
        return this;
    }
}
