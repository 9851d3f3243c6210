/** What is wrong with a picture, in words for who sent it. The server adds which of a request's pictures it is. */
export class ImageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ImageError';
  }
}
